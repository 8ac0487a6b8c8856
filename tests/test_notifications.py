"""Notifications of object stores, each as its vendor documents it, in the forms in which they reach Kafka."""

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from consumer.errors import Unprocessable
from consumer.events import Event, Ignored, ImageDeleted, ImageUpload, Record
from consumer.parse import parse

Headers = tuple[tuple[str, bytes | None], ...]
AVRO = b"Obj\x01\x04\x16avro.schema"


def record(value: Any, headers: Headers = (), key: bytes | None = b"key") -> Record:
    value = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return Record("image-uploads", 3, 42, key, value, headers, 1_700_000_000_000)


def uploaded(message: Record) -> tuple[str, str | None, str | None, datetime | None]:
    """The image id, address, version and time of a message that is one upload."""
    [event] = parse(message)
    assert isinstance(event.body, ImageUpload), event.body
    assert event.image_id == event.body.image_id
    return event.image_id, event.body.url, event.body.version_id, event.body.uploaded_at


def deleted(message: Record) -> str:
    [event] = parse(message)
    assert isinstance(event.body, ImageDeleted), event.body
    return event.body.image_id


def nothing(message: Record) -> bool:
    events = parse(message)
    return all(isinstance(event.body, Ignored) for event in events)


# Amazon S3 User Guide, "Event message structure": the message of a PUT, and the test message.
AWS = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "1970-01-01T00:00:00.000Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
    "requestParameters": {"sourceIPAddress": "127.0.0.1"},
    "responseElements": {
        "x-amz-request-id": "C3D13FE58DE4C810",
        "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD",
    },
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "testConfigRule",
        "bucket": {
            "name": "mybucket",
            "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
            "arn": "arn:aws:s3:::mybucket",
        },
        "object": {
            "key": "HappyFace.jpg",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
AWS_VERSION = "096fKKXTRTtl3on89fVO.nfljtsv6qko"
AWS_TEST = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2014-10-13T15:57:02.089Z",
    "Bucket": "bucketname",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
}


def s3(name: str, **stored_object: Any) -> dict[str, Any]:
    """The message of AWS with another event's name, and other fields of the object."""
    changed = {name: value for name, value in {**AWS["s3"]["object"], **stored_object}.items() if value is not ...}
    return {"Records": [{**AWS, "eventName": name, "s3": {**AWS["s3"], "object": changed}}]}


class TestS3:
    def test_example(self) -> None:
        image_id = f"s3://mybucket/HappyFace.jpg?versionId={AWS_VERSION}"
        expected = (image_id, "s3://mybucket/HappyFace.jpg", AWS_VERSION, datetime(1970, 1, 1, tzinfo=UTC))
        assert uploaded(record({"Records": [AWS]})) == expected

    @pytest.mark.parametrize("version", [..., None, ""])
    def test_without_versions_the_image_id_is_the_address(self, version: object) -> None:
        image_id, url, version_id, _ = uploaded(record(s3("ObjectCreated:Put", versionId=version)))
        assert (image_id, version_id) == (url, None)

    @pytest.mark.parametrize("name", ["Put", "Post", "Copy", "CompleteMultipartUpload", "SomethingNew"])
    def test_uploads(self, name: str) -> None:
        uploaded(record(s3(f"ObjectCreated:{name}")))
        uploaded(record(s3(f"s3:ObjectCreated:{name}")))

    @pytest.mark.parametrize("name", ["ObjectRemoved:Delete", "LifecycleExpiration:Delete"])
    def test_removal_of_a_version_is_of_that_alone(self, name: str) -> None:
        address = "s3://mybucket/HappyFace.jpg"
        assert deleted(record(s3(name))) == f"{address}?versionId={AWS_VERSION}"
        assert deleted(record(s3(name, versionId=...))) == address

    @pytest.mark.parametrize(
        "name",
        [
            "ObjectRemoved:DeleteMarkerCreated",
            "LifecycleExpiration:DeleteMarkerCreated",
            "s3:ObjectRemoved:DeleteAllVersions",  # MinIO
            "ObjectSynced:DeletionMarkerCreated",  # Ceph
            "ObjectLifecycle:Expiration:Current",  # Ceph
        ],
    )
    def test_removal_of_an_object_is_of_all_its_versions(self, name: str) -> None:
        assert deleted(record(s3(name))) == "s3://mybucket/HappyFace.jpg"

    @pytest.mark.parametrize(
        "name",
        [
            # Amazon S3 User Guide, "Supported event types"
            *(
                "ObjectTagging:Put",
                "ObjectTagging:Delete",
                "ObjectAcl:Put",
                "ObjectRestore:Post",
                "LifecycleTransition",
            ),
            *("ObjectRestore:Completed", "ObjectRestore:Delete", "IntelligentTiering", "ReducedRedundancyLostObject"),
            *("Replication:OperationFailedReplication", "Replication:OperationNotTracked", "TestEvent"),
            # MinIO
            *("ObjectCreated:PutTagging", "ObjectCreated:DeleteTagging", "ObjectCreated:PutRetention"),
            *("ObjectCreated:PutLegalHold", "ObjectAccessed:Get", "ObjectAccessed:Head", "ObjectAccessed:GetRetention"),
            *("ObjectTransition:Complete", "BucketCreated:*", "BucketRemoved:*", "Scanner:ManyVersions"),
            *("Replication:OperationCompletedReplication", "ObjectRemoved:NoOP", "ILM:Something"),
            # Ceph
            *("ObjectLifecycle:Transition:Current", "ObjectLifecycle:Expiration:AbortMultipartUpload"),
        ],
    )
    def test_what_is_neither_is_silence(self, name: str) -> None:
        assert nothing(record(s3(f"s3:{name}")))

    def test_the_test_message(self) -> None:
        assert nothing(record(AWS_TEST))

    def test_an_unknown_event_is_answered(self) -> None:
        [event] = parse(record(s3("ObjectSomething:New")))
        assert isinstance(event.body, Unprocessable)
        assert event.body.reason == "unknown-event"

    @pytest.mark.parametrize("time", [None, "2026-03-25T18:01:07", 1717616806478, "soon", "", {}])
    def test_a_time_that_cannot_be_read_is_the_messages(self, time: object) -> None:
        message = s3("ObjectCreated:Put")
        message["Records"][0]["eventTime"] = time
        assert uploaded(record(message))[3] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

    def test_two_changes_that_nothing_tells_apart_are_two(self) -> None:
        message = s3("ObjectCreated:Put", sequencer=..., versionId=...)
        del message["Records"][0]["eventTime"]
        first = record(message)
        second = Record(first.topic, first.partition, first.offset + 1, first.key, first.value, (), first.timestamp_ms)
        assert parse(first)[0].id != parse(second)[0].id
        assert parse(first)[0].id == parse(first)[0].id

    def test_versions_are_two_uploads(self) -> None:
        first, second = (parse(record(s3("ObjectCreated:Put", versionId=version)))[0] for version in "ab")
        assert first.id != second.id
        assert first.image_id != second.image_id

    def test_through_sns(self) -> None:
        """Amazon SNS Developer Guide, "Parsing Amazon SNS message formats"."""
        notification = {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
            "Subject": "Amazon S3 Notification",
            "Message": json.dumps({"Records": [AWS]}),
            "Timestamp": "2012-05-02T00:54:06.655Z",
        }
        assert uploaded(record(notification)) == uploaded(record({"Records": [AWS]}))
        assert nothing(record({**notification, "Message": json.dumps(AWS_TEST)}))
        [event] = parse(record({**notification, "Message": "{"}))
        assert isinstance(event.body, Unprocessable)


class TestEventBridge:
    """Amazon S3 User Guide, "EventBridge event message structure"."""

    CREATED: ClassVar[dict[str, Any]] = {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2021-11-12T00:00:00Z",
        "region": "ca-central-1",
        "resources": ["arn:aws:s3:::amzn-s3-demo-bucket1"],
        "detail": {
            "version": "0",
            "bucket": {"name": "amzn-s3-demo-bucket1"},
            "object": {
                "key": "example-key",
                "size": 5,
                "etag": "b1946ac92492d2347c6235b4d2611184",
                "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
                "sequencer": "617f08299329d189",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "source-ip-address": "1.2.3.4",
            "reason": "PutObject",
        },
    }

    def changed(self, detail_type: str, **detail: Any) -> Record:
        return record({**self.CREATED, "detail-type": detail_type, "detail": {**self.CREATED["detail"], **detail}})

    def test_created(self) -> None:
        version, address = "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e", "s3://amzn-s3-demo-bucket1/example-key"
        expected = (f"{address}?versionId={version}", address, version, datetime(2021, 11, 12, tzinfo=UTC))
        assert uploaded(record(self.CREATED)) == expected

    def test_keys_are_not_encoded_here(self) -> None:
        message = self.changed("Object Created", object={"key": "a+b %41.jpg"})
        assert uploaded(message)[:2] == ("s3://amzn-s3-demo-bucket1/a+b %41.jpg",) * 2

    def test_deleted(self) -> None:
        address = "s3://amzn-s3-demo-bucket1/example-key"
        message = self.changed("Object Deleted", **{"deletion-type": "Permanently Deleted"})
        assert deleted(message) == f"{address}?versionId=IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"
        message = self.changed("Object Deleted", **{"deletion-type": "Delete Marker Created"})
        assert deleted(message) == address

    @pytest.mark.parametrize("name", ["Object Tags Added", "Object ACL Updated", "Object Restore Completed"])
    def test_nothing(self, name: str) -> None:
        assert nothing(self.changed(name))


def test_minio() -> None:
    """MinIO Bucket Notification Guide; the time there is written with dashes that no parser takes."""
    stored_object = {"key": "myphoto.jpg", "size": 200436, "sequencer": "147279EAF9F40933"}
    message = {
        "EventName": "s3:ObjectCreated:Put",
        "Key": "images/myphoto.jpg",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "aws:s3",
                "awsRegion": "",
                "eventTime": "2016\u201309\u201308T22:34:38.226Z",
                "eventName": "s3:ObjectCreated:Put",
                "userIdentity": {"principalId": "minio"},
                "requestParameters": {"sourceIPAddress": "10.1.10.150:44576"},
                "responseElements": {},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "Config",
                    "bucket": {
                        "name": "images",
                        "ownerIdentity": {"principalId": "minio"},
                        "arn": "arn:aws:s3:::images",
                    },
                    "object": stored_object,
                },
            }
        ],
        "level": "info",
        "msg": "",
        "time": "2016\u201309\u201308T15:34:38\u201307:00",
    }
    assert uploaded(record(message, key=b"images/myphoto.jpg"))[0] == "s3://images/myphoto.jpg"


def test_ceph() -> None:
    """IBM Storage Ceph documentation, "Event record"."""
    message = {
        "eventVersion": "2.1",
        "eventSource": "ceph:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2019-11-22T13:47:35.124724Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "tester"},
        "requestParameters": {"sourceIPAddress": ""},
        "responseElements": {
            "x-amz-request-id": "503a4c37-85eb-47cd-8681-2817e80b4281.5330.903595",
            "x-amz-id-2": "14d2-zone1-zonegroup1",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "mynotif1",
            "bucket": {
                "name": "mybucket1",
                "ownerIdentity": {"principalId": "tester"},
                "arn": "arn:aws:s3:us-east-1::mybucket1",
                "id": "503a4c37-85eb-47cd-8681-2817e80b4281.5332.38",
            },
            "object": {
                "key": "myimage1.jpg",
                "size": "1024",
                "eTag": "37b51d194a7513e45b56f6524f2d51f2",
                "versionId": "",
                "sequencer": "F7E6D75DC742D108",
                "metadata": [],
                "tags": [],
            },
        },
        "eventId": "",
        "opaqueData": "me@example.com",
    }
    expected = "s3://mybucket1/myimage1.jpg", datetime(2019, 11, 22, 13, 47, 35, 124724, tzinfo=UTC)
    assert uploaded(record({"Records": [message]}))[::3] == expected
    assert uploaded(record({"Records": [{**message, "eventName": "s3:ObjectSynced:Create"}]}))[0] == expected[0]


class TestR2:
    """Cloudflare R2 documentation, "Event notifications: message format"."""

    COPIED: ClassVar[dict[str, Any]] = {
        "account": "3f4b7e3dcab231cbfdaa90a6a28bd548",
        "action": "CopyObject",
        "bucket": "my-bucket",
        "object": {"key": "my-new-object", "size": 65536, "eTag": "c846ff7a18f28c2e262116d6e8719ef0"},
        "eventTime": "2024-05-24T19:36:44.379Z",
        "copySource": {"bucket": "my-bucket", "object": "my-original-object"},
    }

    def test_created(self) -> None:
        address, time = "s3://my-bucket/my-new-object", datetime(2024, 5, 24, 19, 36, 44, 379000, tzinfo=UTC)
        assert uploaded(record(self.COPIED)) == (address, address, None, time)

    @pytest.mark.parametrize("action", ["DeleteObject", "LifecycleDeletion"])
    def test_deleted(self, action: str) -> None:
        message = {**self.COPIED, "action": action, "object": {"key": "my-new-object"}}
        assert deleted(record(message)) == "s3://my-bucket/my-new-object"

    def test_an_unknown_action_is_answered(self) -> None:
        [event] = parse(record({**self.COPIED, "action": "BendObject"}))
        assert isinstance(event.body, Unprocessable)


class TestGoogle:
    # google-cloud-storage's samples: the attributes and the data of a Pub/Sub message.
    ATTRIBUTES: ClassVar[dict[str, Any]] = {
        "eventType": "OBJECT_FINALIZE",
        "bucketId": "mybucket",
        "objectId": "myobject",
        "objectGeneration": 1234567,
        "resource": "projects/_/buckets/mybucket/objects/myobject#1234567",
        "notificationConfig": "projects/_/buckets/mybucket/notificationConfigs/5",
        "payloadFormat": "JSON_API_V1",
    }
    PAYLOAD = b'{  "size": 12345,  "contentType": "text/html",  "metageneration": 1}'
    # google-cloudevents' test data
    RESOURCE: ClassVar[dict[str, Any]] = {
        "bucket": "my-bucket",
        "contentType": "text/plain",
        "crc32c": "p/E54w==",
        "etag": "CPaEvZG1tPQCEAE=",
        "generation": "1637874272256630",
        "id": "my-bucket/my-file.txt/1637874272256630",
        "kind": "storage#object",
        "metageneration": "1",
        "name": "my-file.txt",
        "size": "13",
        "storageClass": "STANDARD",
        "timeCreated": "2021-11-25T21:04:32.279Z",
        "updated": "2021-11-25T21:04:32.279Z",
    }

    def by_connector(self, value: bytes | None, **changes: Any) -> Record:
        """As Google's Pub/Sub connector writes it with `kafka.record.headers`."""
        attributes = {**self.ATTRIBUTES, **changes}
        return record(value, tuple((name, str(text).encode()) for name, text in attributes.items()), key=None)

    def pushed(self, **changes: Any) -> Record:
        """As Pub/Sub pushes it."""
        message = {"attributes": {**self.ATTRIBUTES, **changes}, "data": "e30=", "messageId": "136969346945"}
        return record({"message": message, "subscription": "projects/p/subscriptions/s"})

    def flattened(self, **changes: Any) -> Record:
        """As connectors write it that put attributes beside the message."""
        return record({"message": "e30=", **self.ATTRIBUTES, **changes})

    @pytest.mark.parametrize("value", [PAYLOAD, b"", None])
    def test_by_connector(self, value: bytes | None) -> None:
        expected = ("gs://mybucket/myobject?versionId=1234567", "gs://mybucket/myobject", "1234567")
        assert uploaded(self.by_connector(value))[:3] == expected

    def test_by_other_ways(self) -> None:
        expected = uploaded(self.by_connector(None))
        assert uploaded(self.pushed()) == uploaded(self.flattened()) == expected

    def test_changes(self) -> None:
        for make in (lambda **changes: self.by_connector(None, **changes), self.pushed, self.flattened):
            assert deleted(make(eventType="OBJECT_DELETE")) == "gs://mybucket/myobject?versionId=1234567"
            assert deleted(make(eventType="OBJECT_ARCHIVE")) == "gs://mybucket/myobject"
            assert nothing(make(eventType="OBJECT_ARCHIVE", overwrittenByGeneration="7"))
            assert nothing(make(eventType="OBJECT_METADATA_UPDATE"))

    def test_a_payload_without_attributes_says_what_is_missing(self) -> None:
        [event] = parse(record(self.RESOURCE))
        assert isinstance(event.body, Unprocessable)
        assert "kafka.record.headers" in event.body.detail

    def cloud_event(self, name: str) -> Record:
        headers = {
            "ce_id": "123451234512345",
            "ce_specversion": "1.0",
            "ce_time": "2020-01-02T12:34:56.789Z",
            "ce_type": f"google.cloud.storage.object.v1.{name}",
            "ce_source": "//storage.googleapis.com/projects/_/buckets/my-bucket",
            "content-type": "application/json",
        }
        return record(self.RESOURCE, tuple((name, text.encode()) for name, text in headers.items()))

    def test_eventarc(self) -> None:
        assert uploaded(self.cloud_event("finalized"))[1:3] == ("gs://my-bucket/my-file.txt", "1637874272256630")
        assert deleted(self.cloud_event("deleted")) == "gs://my-bucket/my-file.txt?versionId=1637874272256630"
        assert nothing(self.cloud_event("archived"))
        assert nothing(self.cloud_event("metadataUpdated"))


class TestAzure:
    """Azure documentation, "Azure Blob Storage as an Event Grid source"."""

    DATA: ClassVar[dict[str, Any]] = {
        "api": "PutBlockList",
        "clientRequestId": "6d79dbfb-0e37-4fc4-981f-442c9ca65760",
        "requestId": "831e1650-001e-001b-66ab-eeb76e000000",
        "eTag": '"0x8D4BCC2E4835CD0"',
        "contentType": "text/plain",
        "contentLength": 524288,
        "blobType": "BlockBlob",
        "url": "https://my-storage-account.blob.core.windows.net/testcontainer/new-file.txt",
        "sequencer": "00000000000004420000000000028963",
        "storageDiagnostics": {"batchId": "b68529f3-68cd-4744-baa4-3c0498ec19f0"},
    }
    SOURCE = (
        "/subscriptions/{subscription-id}/resourceGroups/Storage/providers/Microsoft.Storage/storageAccounts/"
        "my-storage-account"
    )

    def event(self, name: str, **data: Any) -> dict[str, Any]:
        """In Event Grid's own schema."""
        return {
            "topic": self.SOURCE,
            "subject": "/blobServices/default/containers/test-container/blobs/new-file.txt",
            "eventType": f"Microsoft.Storage.{name}",
            "eventTime": "2017-06-26T18:41:00.9584103Z",
            "id": "831e1650-001e-001b-66ab-eeb76e069631",
            "data": {**self.DATA, **data},
            "dataVersion": "",
            "metadataVersion": "1",
        }

    def cloud_event(self, name: str, **data: Any) -> dict[str, Any]:
        return {
            "source": self.SOURCE,
            "subject": "/blobServices/default/containers/test-container/blobs/new-file.txt",
            "type": f"Microsoft.Storage.{name}",
            "time": "2017-06-26T18:41:00.9584103Z",
            "id": "831e1650-001e-001b-66ab-eeb76e069631",
            "data": {**self.DATA, **data},
            "specversion": "1.0",
        }

    @pytest.mark.parametrize("schema", ["event", "cloud_event"])
    def test_each_schema_alone_and_in_a_list(self, schema: str) -> None:
        make = getattr(self, schema)
        address, time = "az://testcontainer/new-file.txt", datetime(2017, 6, 26, 18, 41, 0, 958410, tzinfo=UTC)
        for value in (make("BlobCreated"), [make("BlobCreated")]):
            assert uploaded(record(value)) == (address, address, None, time)
        assert deleted(record([make("BlobDeleted", api="DeleteBlob")])) == address
        for name in ("BlobTierChanged", "AsyncOperationInitiated", "DirectoryCreated", "BlobInventoryPolicyCompleted"):
            assert nothing(record([make(name)]))

    def test_a_file_of_a_data_lake_counts_when_it_is_complete(self) -> None:
        url = "https://my-storage-account.dfs.core.windows.net/my-file-system/new%20file.jpg"
        assert nothing(record([self.event("BlobCreated", api="CreateFile", url=url, contentLength=0)]))
        complete = self.event("BlobCreated", api="FlushWithClose", url=url)
        assert uploaded(record([complete]))[0] == "az://my-file-system/new file.jpg"

    def test_validation_of_the_subscription(self) -> None:
        assert nothing(record([{**self.event(""), "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent"}]))

    @pytest.mark.parametrize("url", ["https://evil.example/c/b", "c/b", "https://a.blob.core.windows.net/c", 5])
    def test_other_addresses_are_refused(self, url: object) -> None:
        [event] = parse(record([self.event("BlobCreated", url=url)]))
        assert isinstance(event.body, Unprocessable)


def field(number: int, value: bytes) -> bytes:
    """A field of a protocol buffer, shorter than 128 bytes, or an enclosed message."""
    return bytes([number << 3 | 2, len(value)]) + value


def entry(name: str, chunk: bytes = b"\x0a\x0c3,01637037d6\x10\x07", attributes: bytes = b"\x08\x01") -> bytes:
    """SeaweedFS's Entry, by `weed/pb/filer.proto`: name, chunks, attributes."""
    return field(1, name.encode()) + field(3, chunk) + field(4, attributes)


class TestSeaweedFS:
    """What `weed/notification/kafka` writes: the path as the key, an EventNotification as the value."""

    PATH = "/buckets/pics/dir/a.jpg"

    def message(
        self, old: bytes = b"", new: bytes = b"", parent: str = "/buckets/pics/dir", path: str = PATH
    ) -> Record:
        value = (field(1, old) if old else b"") + (field(2, new) + field(4, parent.encode()) if new else b"")
        return record(value + b"\x18\x01\x30\x05", key=path.encode())

    def test_written(self) -> None:
        assert uploaded(self.message(new=entry("a.jpg")))[0] == "s3://pics/dir/a.jpg"

    def test_overwritten(self) -> None:
        assert uploaded(self.message(entry("a.jpg"), entry("a.jpg", b"\x0a\x013")))[0] == "s3://pics/dir/a.jpg"

    def test_other_attributes(self) -> None:
        assert nothing(self.message(entry("a.jpg"), entry("a.jpg", attributes=b"\x08\x02")))

    def test_removed(self) -> None:
        assert deleted(self.message(old=entry("a.jpg"))) == "s3://pics/dir/a.jpg"

    def test_renamed(self) -> None:
        old, new = parse(self.message(entry("a.jpg"), entry("b.jpg"), "/buckets/other"))
        assert old.body == ImageDeleted(image_id="s3://pics/dir/a.jpg")
        assert new.image_id == "s3://other/b.jpg"
        assert old.id != new.id

    def test_renamed_to_a_name_that_is_too_long(self) -> None:
        long = b"\x80\x20" + b"n" * 4096  # the length in two bytes
        value = field(1, entry("a.jpg")) + b"\x12\x83\x20\x0a" + long + field(4, b"/buckets/pics/dir")
        old, new = parse(record(value, key=self.PATH.encode()))
        assert old.body == ImageDeleted(image_id="s3://pics/dir/a.jpg")
        assert isinstance(new.body, Unprocessable)

    @pytest.mark.parametrize(
        "path", ["/etc/a.jpg", "/buckets/pics", "/buckets/pics/.uploads/1/0001.part", "/topics/.system/log"]
    )
    def test_what_is_no_object(self, path: str) -> None:
        assert nothing(self.message(old=entry("a.jpg"), path=path))

    def test_a_folder(self) -> None:
        assert nothing(self.message(new=entry("dir") + b"\x10\x01"))

    @pytest.mark.parametrize("value", [AVRO, b"\x0a", b"\x0a\x05ab", b"\xff" * 20, b"\x08\x01", b"\x0b"])
    def test_other_bytes_are_refused(self, value: bytes) -> None:
        [event] = parse(record(value, key=self.PATH.encode()))
        assert isinstance(event.body, Unprocessable)


def test_each_entry_stands_for_itself() -> None:
    first, second = s3("ObjectCreated:Put"), s3("ObjectCreated:PutTagging")
    events: list[Event] = parse(record({"Records": [*first["Records"], 5, *second["Records"], {}]}))
    kinds = [type(event.body) for event in events]
    assert kinds == [ImageUpload, Unprocessable, Ignored, Unprocessable]
    assert len({event.id for event in events}) == 4
