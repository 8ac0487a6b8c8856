"""Notifications of object stores: what they say happened to which object.

Each store has a form of its own, and each way into Kafka may wrap it once more:

- S3 (`Records[]`): AWS, MinIO, Ceph and others; AWS also through EventBridge and SNS;
- Cloudflare R2;
- Google Cloud Storage: attributes of a Pub/Sub message, or a CloudEvent;
- Azure Event Grid: its own schema, or a CloudEvent.

SeaweedFS writes no JSON: see `consumer.filer_events`.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, unquote_plus, urlsplit

from consumer.errors import Unprocessable
from consumer.json_values import load_json

Document = dict[str, Any]


class Change(NamedTuple):
    """What happened to an object, or to one version of it.

    `address` is that of the object: `s3://bucket/key`, `gs` and `az` alike. `identity` names this change for good; it
    is empty where the notification does not tell it from others.
    """

    kind: Literal["created", "removed"]
    address: str
    version: str | None
    time: datetime | None
    identity: tuple[str, ...]

    @property
    def image_id(self) -> str:
        """The name of the picture. Versions of an object are pictures of their own; who removes it removes them."""
        return f"{self.address}?versionId={self.version}" if self.version else self.address


# Reads an entry of a notification; None where nothing is to be done. Raises Unprocessable, and anything (KeyError,
# TypeError, RecursionError and others) for what is not of its form.
Reader = Callable[[Document], Change | None]

# Names of S3 events, without `s3:`. What follows ObjectCreated: may also be no upload: MinIO names changes of tags,
# retention and legal hold so.
METADATA_CHANGE = re.compile(r"Tag|Retention|LegalHold|Acl|Attribute|Annotation|Metadata|Encryption", re.IGNORECASE)
CREATED = re.compile(r"ObjectCreated:|ObjectSynced:Create")
REMOVED = re.compile(
    r"ObjectRemoved:|LifecycleExpiration:Delete|ObjectSynced:Delet"
    r"|ObjectLifecycle:Expiration:(?:Current|Non[Cc]urrent)|(?:Lifecycle|ILM):?DelMarkerExpiration:Delete"
)
# Of a versioned object: hidden behind a marker, or removed with all versions. The version named is not what is removed.
WHOLE_OBJECT = re.compile(r"Delet\w+MarkerCreated|DeleteAllVersions|Expiration:Current")
NOTHING_DONE = re.compile(r"ObjectRemoved:No[Oo][Pp]")
NO_CONTENT = re.compile(
    r"TestEvent|ObjectTagging|ObjectAcl|ObjectRestore|ObjectAccessed|ObjectTransition|ObjectAnnotation|Object_?Replication"
    r"|Replication|LifecycleTransition|IntelligentTiering|ReducedRedundancyLostObject|ObjectLifecycle|Scanner|ILM"
    r"|Bucket(?:Created|Removed)"
)


def find_entries(document: Document) -> tuple[Reader, list[Any]] | None:
    """Find the entries of a notification, and what reads them; None for a document that is none.

    Raises Unprocessable for one that wraps what is not JSON.
    """
    while (wrapped := _unwrap(document)) is not None:
        document = wrapped
    if isinstance(document.get("Records"), list):
        return _s3_record, document["Records"]
    name = document.get("eventType") or document.get("type")
    for prefix, reader in BY_TYPE.items():
        if isinstance(name, str) and name.startswith(prefix):
            return reader, [document]
    for fields, reader in BY_FIELDS.items():
        if fields <= document.keys():
            return reader, [document]
    return None


def _unwrap(document: Document) -> Document | None:
    """Take out of the document what SNS, or Pub/Sub where it pushes, have put into it. Raises Unprocessable."""
    if document.get("Type") == "Notification" and isinstance(document.get("Message"), str):
        inner = load_json(document["Message"])
        return inner if isinstance(inner, dict) else {}
    message = document.get("message")
    if isinstance(message, dict) and isinstance(message.get("attributes"), dict):
        attributes: Document = message["attributes"]
        return attributes
    return None


def _test_event(event: Document) -> None:
    """Read what S3 sends when a notification is set up: `s3:TestEvent`, and nothing that asks for anything."""
    if event["Event"] != "s3:TestEvent":
        raise Unprocessable("unknown-event", f"the event {str(event['Event'])[:80]!r} is not known")


def _s3_record(entry: Document) -> Change | None:
    name = str(entry["eventName"]).removeprefix("s3:")
    if NOTHING_DONE.match(name) or (CREATED.match(name) and METADATA_CHANGE.search(name)):
        return None
    kind: Literal["created", "removed"] | None = (
        "created" if CREATED.match(name) else "removed" if REMOVED.match(name) else None
    )
    if kind is None:
        if NO_CONTENT.match(name):
            return None
        raise Unprocessable("unknown-event", f"bucket event {name[:80]!r} is neither ObjectCreated nor ObjectRemoved")
    bucket, stored_object = str(entry["s3"]["bucket"]["name"]), entry["s3"]["object"]
    raw_key, version = str(stored_object["key"]), stored_object.get("versionId") or None
    address = f"s3://{bucket}/{unquote_plus(raw_key, errors='strict')}"
    # Of one object's changes, the sequencer and the time tell which this is.
    sequencer, time = stored_object.get("sequencer") or "", entry.get("eventTime", "")
    told_apart = sequencer or to_time(time) or version
    identity = (bucket, raw_key, name, str(sequencer), str(time), *([str(version)] if version else []))
    if WHOLE_OBJECT.search(name):
        version = None
    return Change(kind, address, _version(version), to_time(time), identity if told_apart else ())


def _eventbridge(event: Document) -> Change | None:
    """Read an event of EventBridge, which does not encode keys."""
    kinds = {"Object Created": "created", "Object Deleted": "removed"}
    if event["source"] != "aws.s3":
        raise Unprocessable("unknown-event", f"an event of {str(event['source'])[:80]!r} is not one of S3")
    kind = kinds.get(event["detail-type"])
    if kind is None:  # tags, ACLs, storage classes, restores
        return None
    detail = event["detail"]
    stored_object = detail["object"]
    version = stored_object.get("version-id") or None
    if detail.get("deletion-type") == "Delete Marker Created":
        version = None
    address = f"s3://{detail['bucket']['name']}/{stored_object['key']}"
    return _change(kind, address, version, event.get("time"), ("aws.s3", str(event["id"])))


def _r2(event: Document) -> Change:
    kinds = {
        "PutObject": "created",
        "CopyObject": "created",
        "CompleteMultipartUpload": "created",
        "DeleteObject": "removed",
        "LifecycleDeletion": "removed",
    }
    action, bucket, key = str(event["action"]), str(event["bucket"]), str(event["object"]["key"])
    if action not in kinds:
        raise Unprocessable("unknown-event", f"R2's action {action[:80]!r} is not one of {', '.join(kinds)}")
    identity = ("r2", str(event["account"]), bucket, key, action, str(event.get("eventTime")))
    return _change(kinds[action], f"s3://{bucket}/{key}", None, event.get("eventTime"), identity)


def _google_attributes(attributes: Document) -> Change | None:
    """Read the attributes of a Pub/Sub message about an object; a generation is Google's word for a version."""
    name = str(attributes["eventType"])
    bucket, key, generation = (str(attributes[field]) for field in ("bucketId", "objectId", "objectGeneration"))
    replaced = bool(attributes.get("overwrittenByGeneration"))
    return _google(name, bucket, key, generation, replaced, attributes.get("eventTime"))


def _google_resource(_: Document) -> None:
    """Refuse an object of Google's by itself, which does not say what happened to it."""
    raise Unprocessable(
        "unknown-event",
        "an object of Google Cloud Storage without an event type; have the connector pass on Pub/Sub's attributes "
        "(kafka.record.headers=true)",
    )


def _google_cloud_event(event: Document) -> Change | None:
    """Read a CloudEvent of Eventarc about an object."""
    names = {
        "finalized": "OBJECT_FINALIZE",
        "deleted": "OBJECT_DELETE",
        "archived": "OBJECT_ARCHIVE",
        "metadataUpdated": "OBJECT_METADATA_UPDATE",
    }
    data = event["data"]
    name = names.get(str(event["type"]).rpartition(".")[2], str(event["type"]))
    bucket, key, generation = (str(data[field]) for field in ("bucket", "name", "generation"))
    # That one has been archived since another has taken its place is not said here.
    return _google(name, bucket, key, generation, name == "OBJECT_ARCHIVE", event.get("time"))


def _google(name: str, bucket: str, key: str, generation: str, replaced: bool, time: object) -> Change | None:
    """Make a change of a generation. One that was archived by itself is hidden, as by a delete marker of S3."""
    kinds = {"OBJECT_FINALIZE": "created", "OBJECT_DELETE": "removed", "OBJECT_ARCHIVE": "removed"}
    if name == "OBJECT_METADATA_UPDATE" or (name == "OBJECT_ARCHIVE" and replaced):
        return None
    if name not in kinds:
        raise Unprocessable("unknown-event", f"the event type {name[:80]!r} is not one of {', '.join(kinds)}")
    version = None if name == "OBJECT_ARCHIVE" else generation
    return _change(kinds[name], f"gs://{bucket}/{key}", version, time, ("gs", bucket, key, generation, name))


# Of a blob in a data lake the first event comes when it is made, still empty, and the next when it is complete.
AZURE_UNFINISHED = frozenset({"CreateFile", "SftpCreate"})
AZURE_HOST = re.compile(r"[a-z0-9-]+\.(?:blob|dfs)\.[a-z0-9.-]+", re.IGNORECASE)


def _azure(event: Document) -> Change | None:
    kinds = {"Microsoft.Storage.BlobCreated": "created", "Microsoft.Storage.BlobDeleted": "removed"}
    kind = kinds.get(str(event.get("eventType") or event.get("type")))
    data = event["data"]
    if kind is None or data.get("api") in AZURE_UNFINISHED:
        return None
    url = urlsplit(str(data["url"]))
    container, _, blob = url.path.removeprefix("/").partition("/")
    if not AZURE_HOST.fullmatch(url.hostname or "") or not container or not blob:
        raise Unprocessable("malformed-event", "the url is not that of a blob in an Azure container")
    time = event.get("eventTime") or event.get("time")
    address = f"az://{unquote(container, errors='strict')}/{unquote(blob, errors='strict')}"
    return _change(kind, address, None, time, ("azure", str(event["id"])))


def _change(kind: str, address: str, version: object, time: object, identity: tuple[str, ...]) -> Change:
    return Change("created" if kind == "created" else "removed", address, _version(version), to_time(time), identity)


def _version(version: object) -> str | None:
    return None if version is None else str(version)


def to_time(value: object) -> datetime | None:
    """Read a time with its zone, as stores write it, as one in UTC; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):  # also for a time that UTC has no year for
        return None


# What an event's type begins with, and what fields it has in forms without a type of their own.
BY_TYPE: dict[str, Reader] = {
    "Microsoft.Storage.": _azure,
    "Microsoft.EventGrid.": _azure,
    "google.cloud.storage.object.v1.": _google_cloud_event,
    "OBJECT_": _google_attributes,
}
BY_FIELDS: dict[frozenset[str], Reader] = {
    frozenset({"Service", "Event", "Bucket"}): _test_event,
    frozenset({"source", "detail-type", "detail"}): _eventbridge,
    frozenset({"account", "action", "bucket", "object"}): _r2,
    frozenset({"kind", "bucket", "name", "generation"}): _google_resource,
}
