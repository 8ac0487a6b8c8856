"""The Compose file, Dockerfiles and Kubernetes manifests are valid by their schemas and mean the right thing."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from pydantic import SecretStr

from consumer.cli.preflight.kafka import check_kafka, check_serving
from consumer.errors import Unavailable
from consumer.events import ImageUpload
from consumer.http.limits import FORM_BYTES
from consumer.kafka.clients import EventsProducer, VerdictsReader
from consumer.kafka.lag import LagReader
from consumer.kafka.messages import OutgoingMessage
from consumer.kafka.sender import Sender
from consumer.kafka.topics import TopicAdmin, differences, required_topics
from consumer.settings import KafkaSettings, Settings, WindowSettings
from consumer.verdicts import Model, Verdict
from deploy.kubernetes.prometheus_rule import FILE, prometheus_rule
from tests.deploy import tools
from tests.kafka_cluster import KafkaCluster
from tests.kafka_fixtures import USERS

# The first run fetches the validators and builds kustomize.
pytestmark = pytest.mark.timeout(600)

HERE = Path(__file__).parent
DEPLOY = HERE.parent.parent / "deploy"
KUBERNETES = "1.37.0"
OPERATORS = ("keda.sh", "kafka.strimzi.io", "monitoring.coreos.com")
OVERLAYS = ("cpu", "gpu")

Manifest = dict[str, Any]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERDICT = Verdict(
    image_id="a",
    tenant="default",
    verdict="unique",
    threshold_l2=0.5,
    model=Model(name="image_encoder", version="1"),
    received_at=NOW,
    decided_at=NOW,
)


@pytest.fixture(scope="module")
def validators() -> Path:
    return tools.validators()


def run(validators: Path, *command: str) -> None:
    """Run a program of the validators; it has to succeed."""
    environment = {**os.environ, "PYTHONPATH": str(validators)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Compose and Dockerfiles


def test_the_compose_file_keeps_its_schema(validators: Path) -> None:
    check = str(validators / "bin" / "check-jsonschema")
    run(validators, sys.executable, check, "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))


def test_what_the_compose_file_names_is_there() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), volume
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert set(service.get("depends_on", ())) <= set(compose["services"])


def test_compose_configures_what_the_service_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name, value in compose["services"]["consumer"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Settings()  # raises for a variable that does not exist
    assert settings.fetch.buckets == ("uploads",)
    assert settings.kafka.bootstrap_servers == "kafka:9092"


@pytest.mark.parametrize("name", ["consumer", "triton"])
def test_dockerfiles_are_clean(validators: Path, name: str) -> None:
    file = DEPLOY / "docker" / f"{name}.Dockerfile"
    run(validators, str(validators / "bin" / "hadolint"), str(file))
    text = file.read_text()
    assert "\nUSER " in text
    assert "\nHEALTHCHECK " in text


def pinned(lock: Path) -> dict[str, str]:
    """Map the names of a lock to their versions; each line has to have a hash."""
    lines = lock.read_text().replace("\\\n", " ").splitlines()
    requirements = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert all("--hash=sha256:" in line for line in requirements)
    return {name: rest.split()[0] for name, _, rest in (line.partition("==") for line in requirements)}


@pytest.mark.parametrize("name", ["requirements", "triton", "build"])
def test_images_install_by_hash_what_the_tests_ran_with(name: str) -> None:
    shipped = pinned(DEPLOY / "docker" / f"{name}.lock")
    assert shipped
    if name != "build":
        tested = pinned(DEPLOY.parent / "requirements.lock")
        # What only another version of Python needs is not in the tested set.
        assert {
            package: version for package, version in shipped.items() if tested.get(package, version) != version
        } == {}


def test_the_consumer_image_has_what_the_package_needs() -> None:
    """It has nothing of the embedded stack or the tests."""
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    lock = pinned(DEPLOY / "docker" / "requirements.lock")
    assert {name.lower() for name in map(package_name, project["dependencies"])} <= set(lock)
    assert not set(lock) & {"onnxruntime", "scikit-image", "matplotlib", "pytest"}


def package_name(requirement: str) -> str:
    for mark in "[<>=! ":
        requirement = requirement.partition(mark)[0]
    return requirement


# Kubernetes


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return built(request.param)


def examples() -> list[Manifest]:
    files = sorted((DEPLOY / "kubernetes" / "examples").glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text())]


def built(overlay: str) -> list[Manifest]:
    return kustomized(DEPLOY / "kubernetes" / "overlays" / overlay)


def kustomized(folder: Path) -> list[Manifest]:
    done = subprocess.run([tools.kustomize(), "build", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def test_the_prometheus_rule_is_written_from_the_rules() -> None:
    assert FILE.read_text() == prometheus_rule(), "run: python deploy/kubernetes/prometheus_rule.py"
    spec = yaml.safe_load(FILE.read_text())["spec"]
    assert spec == yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())


def test_built_in_kinds_keep_their_schemas(manifests: list[Manifest], validators: Path) -> None:
    own = [each for each in [*manifests, *examples()] if each["apiVersion"].split("/")[0] not in OPERATORS]
    script = (
        "import json, sys, kubernetes_validate as k\n"
        f"for each in json.load(sys.stdin): k.validate(each, {KUBERNETES!r}, strict=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(validators)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(own),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert {each["kind"] for each in own} >= {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"}


def test_custom_resources_keep_their_operators_schemas(manifests: list[Manifest]) -> None:
    own = [each for each in [*manifests, *examples()] if each["apiVersion"].split("/")[0] in OPERATORS]
    node = tools.needed("node", "nodejs")
    command = [node, str(HERE / "custom_resources.mjs"), str(tools.custom_resources())]

    def problems(resources: list[Manifest]) -> str:
        done = subprocess.run(command, input=json.dumps(resources), capture_output=True, text=True, check=False)
        assert done.returncode == bool(done.stdout), done.stderr
        return done.stdout

    assert problems(own) == ""
    topic = next(each for each in own if each["kind"] == "KafkaTopic")
    broken = {**topic, "spec": {**topic["spec"], "partitions": "many"}}
    assert "partitions must be integer" in problems([broken])  # the check does notice faults


def test_every_container_runs_with_few_rights(manifests: list[Manifest]) -> None:
    for deployment in of_kind(manifests, "Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)


def test_the_overlays_of_the_guide_do_what_they_are_said_to(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    guide = (DEPLOY / "README.md").read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^       .*\n)+", guide, re.MULTILINE)]
    [whole] = [block for block in blocks if block.startswith("# my-overlay/kustomization.yaml")]
    [without_strimzi] = [block for block in blocks if "$patch: delete" in block]

    def manifests(text: str) -> list[Manifest]:
        (tmp_path / "my-overlay").mkdir(exist_ok=True)
        (tmp_path / "my-overlay" / "kustomization.yaml").write_text(text)
        return kustomized(tmp_path / "my-overlay")

    own = manifests(whole)
    images = {
        name: d["spec"]["template"]["spec"]["containers"][0]["image"] for name, d in of_kind(own, "Deployment").items()
    }
    assert images == {
        "seenit-consumer": "REGISTRY/seenit:0.1.0",
        "seenit-http": "REGISTRY/seenit:0.1.0",
        "triton": "REGISTRY/seenit-triton:0.1.0",
    }
    assert "SEENIT_WINDOW_RETENTION_S" in settings_of(own)
    assert "10.2.3.4/32" in json.dumps(of_kind(own, "NetworkPolicy")["seenit-consumer"]["spec"]["egress"])
    for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule"):
        assert all("release" in each["metadata"]["labels"] for each in of_kind(own, kind).values())
    head = "namespace: seenit\nresources: [../deploy/kubernetes/overlays/cpu]\n"
    own = manifests(head + without_strimzi)
    assert not [each for each in own if each["apiVersion"].startswith("kafka.strimzi.io")]
    assert settings_of(own)["SEENIT_KAFKA_BOOTSTRAP_SERVERS"] == "BROKER:9093"
    [trigger] = of_kind(own, "ScaledObject")["seenit-consumer"]["spec"]["triggers"]
    assert trigger["metadata"]["bootstrapServers"] == "BROKER:9093"


def settings_of(manifests: list[Manifest]) -> dict[str, str]:
    [data] = (each["data"] for each in of_kind(manifests, "ConfigMap").values() if "SEENIT_TRITON_URL" in each["data"])
    return dict(data)


def test_references_between_manifests_hold(manifests: list[Manifest]) -> None:
    consumer = of_kind(manifests, "Deployment")["seenit-consumer"]
    [container] = consumer["spec"]["template"]["spec"]["containers"]
    config = of_kind(manifests, "ConfigMap")[container["envFrom"][0]["configMapRef"]["name"]]
    secrets = {each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"]}
    users = of_kind(manifests, "KafkaUser")
    assert secrets == {config["data"]["SEENIT_KAFKA_SASL_USERNAME"], "seenit-redis"}
    assert config["data"]["SEENIT_KAFKA_SASL_USERNAME"] in users
    [serving] = of_kind(manifests, "Deployment")["seenit-http"]["spec"]["template"]["spec"]["containers"]
    secrets = {
        each["name"]: each["valueFrom"]["secretKeyRef"]["name"] for each in serving["env"] if "valueFrom" in each
    }
    assert secrets["SEENIT_SERVE_SESSION_SECRET"] == "seenit-http-session"
    assert secrets["SEENIT_KAFKA_SASL_PASSWORD"] in users
    host, _, port = config["data"]["SEENIT_TRITON_URL"].partition(":")
    service = of_kind(manifests, "Service")[host]
    assert int(port) in {each["port"] for each in service["spec"]["ports"]}
    labels = {name: d["spec"]["template"]["metadata"]["labels"] for name, d in of_kind(manifests, "Deployment").items()}
    selectors = [service["spec"]["selector"]]
    for kind, path in (
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
        ("PodMonitor", "selector"),
    ):
        selectors += [each["spec"][path]["matchLabels"] for each in of_kind(manifests, kind).values()]
    for selector in selectors:
        assert any(selector.items() <= own.items() for own in labels.values()), selector
    # The configuration names the example's Kafka, and the network policy lets its Redis through.
    kafka = of_kind(examples(), "Kafka")["kafka"]
    bootstrap = f"{kafka['metadata']['name']}-kafka-bootstrap:{kafka['spec']['kafka']['listeners'][0]['port']}"
    assert config["data"]["SEENIT_KAFKA_BOOTSTRAP_SERVERS"] == bootstrap
    assert {each["metadata"]["labels"]["strimzi.io/cluster"] for each in users.values()} == {"kafka"}
    redis = of_kind(examples(), "StatefulSet")["redis"]["spec"]["template"]["metadata"]["labels"]
    egress = of_kind(manifests, "NetworkPolicy")["seenit-consumer"]["spec"]["egress"]
    allowed = [to["podSelector"]["matchLabels"] for rule in egress for to in rule["to"] if "podSelector" in to]
    assert redis in allowed
    # More consumers than partitions would idle.
    scaled = of_kind(manifests, "ScaledObject")["seenit-consumer"]["spec"]
    [trigger] = scaled["triggers"]
    assert scaled["scaleTargetRef"]["name"] in labels
    topic = of_kind(manifests, "KafkaTopic")[trigger["metadata"]["topic"]]
    assert scaled["maxReplicaCount"] == topic["spec"]["partitions"]
    assert trigger["authenticationRef"]["name"] in of_kind(manifests, "TriggerAuthentication")


def test_look_ups_are_reached_reach_their_servers_and_scale() -> None:
    files = sorted((DEPLOY / "kubernetes" / "base").glob("*.yaml"))
    base = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    pod = of_kind(base, "Deployment")["seenit-http"]["spec"]["template"]
    ports = {each["name"]: each["containerPort"] for each in pod["spec"]["containers"][0]["ports"]}
    # From the ingress to the service, its port, and the pod's.
    ingress = of_kind(examples(), "Ingress")["seenit-http"]
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    backend = path["backend"]["service"]
    service = of_kind(base, "Service")[backend["name"]]["spec"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    [port] = (each for each in service["ports"] if each["name"] == backend["port"]["name"])
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    limit = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(limit.removesuffix("m")) << 20 >= Settings().fetch.max_bytes + FORM_BYTES
    # The policy lets through what the service has to be asked and has to ask: as the consumer, but for who may ask.
    policies = of_kind(base, "NetworkPolicy")
    policy = policies["seenit-http"]["spec"]
    assert [each["port"] for rule in policy["ingress"] for each in rule["ports"]] == [ports[port["targetPort"]], 9464]
    assert policy["egress"] == policies["seenit-consumer"]["spec"]["egress"]
    # Two of them stay when a node goes, and the autoscaler alone says how many there are.
    scaler = of_kind(base, "HorizontalPodAutoscaler")["seenit-http"]["spec"]
    assert (scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) == ("Deployment", "seenit-http")
    assert "replicas" not in of_kind(base, "Deployment")["seenit-http"]["spec"]
    assert scaler["minReplicas"] > of_kind(base, "PodDisruptionBudget")["seenit-http"]["spec"]["maxUnavailable"]
    measured = {each["resource"]["name"] for each in scaler["metrics"]}
    assert measured <= set(pod["spec"]["containers"][0]["resources"]["requests"])  # of what it asks for


def test_the_configuration_is_one_that_the_service_takes(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    [config] = (each for each in of_kind(manifests, "ConfigMap").values() if "SEENIT_TRITON_URL" in each["data"])
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.kafka.security_protocol == "sasl_ssl"
    assert settings.http.host == "0.0.0.0"  # noqa: S104
    topics = {settings.kafka.embeddings_topic, settings.kafka.banks_topic, settings.kafka.rematches_topic}
    assert topics <= set(of_kind(manifests, "KafkaTopic"))


def test_the_kafka_user_may_do_all_it_has_to_and_the_topics_are_as_wanted(kafka_secured: KafkaCluster) -> None:
    """The manifests' topics and access lists on a real broker, and `seenit check` as that user."""
    manifests = built("cpu")
    for name, topic in of_kind(manifests, "KafkaTopic").items():
        config = {key: str(value) for key, value in topic["spec"]["config"].items()} | {"min.insync.replicas": "1"}
        kafka_secured.create_topic(name, topic["spec"]["partitions"], config)
    users = of_kind(manifests, "KafkaUser")
    grant(kafka_secured, users["seenit"]["spec"]["authorization"]["acls"], "seenit")
    settings = as_user(kafka_secured, "seenit")
    findings = list(check_kafka(settings))
    assert [finding for finding in findings if finding.outcome == "failed"] == []
    outcomes = {finding.what: finding.outcome for finding in findings}
    assert outcomes["kafka: transactions"] == "ok"
    assert LagReader(settings).ask(range(12)) == dict.fromkeys(range(12), 0)
    # As `seenit topics` wants them, except for the number of replicas: this cluster has one broker.
    specs = required_topics(
        settings, partitions=12, replicas=1, retention_days=7, window_s=WindowSettings().retention_s
    )
    assert list(differences(TopicAdmin(settings).describe([spec.name for spec in specs]), specs)) == []
    # The autoscaler may ask for the lag, and no more.
    grant(kafka_secured, users["seenit-scaler"]["spec"]["authorization"]["acls"], "stranger")
    scaler = as_user(kafka_secured, "stranger")
    assert LagReader(scaler).ask(range(12)) == dict.fromkeys(range(12), 0)
    assert len([finding for finding in check_kafka(scaler) if finding.outcome == "failed"]) >= 4
    # Who answers over HTTP may ask for changes and tell of them, and not answer uploads.
    assert "failed" in {each.outcome for each in check_serving(as_user(kafka_secured, "seenit-http"))}
    grant(kafka_secured, users["seenit-http"]["spec"]["authorization"]["acls"], "seenit-http")
    findings = list(check_serving(as_user(kafka_secured, "seenit-http"), thumbnails=True))
    assert {finding.outcome for finding in findings} == {"ok"}
    assert "kafka: write image-audit" in {finding.what for finding in findings}
    sender = Sender(as_user(kafka_secured, "seenit-http"))
    assert LagReader(as_user(kafka_secured, "seenit-http")).total() == 0
    for topic in ("image-uploads", "image-audit"):
        sender.send(OutgoingMessage(topic, b"a", b"{}", ())).result(30)
    with pytest.raises(Unavailable, match="authorization"):
        sender.send(OutgoingMessage("image-verdicts", b"a", b"{}", ())).result(30)
    sender.close()
    # The users of the examples: one may upload, the other read verdicts, and neither may do what the other may.
    for name, user in of_kind(examples(), "KafkaUser").items():
        grant(kafka_secured, user["spec"]["authorization"]["acls"], name)
    uploader, reader = (as_user(kafka_secured, name) for name in ("uploader", "reader"))
    upload(uploader)
    with pytest.raises(Unavailable, match="refused"):
        upload(reader)
    producer = Producer({"bootstrap.servers": kafka_secured.bootstrap_servers})
    producer.produce("image-verdicts", VERDICT.model_dump_json().encode())
    producer.flush(10)
    verdicts = VerdictsReader(reader, from_beginning=True)
    deadline_s = time.monotonic() + 20
    while not (received := [published.verdict for published in verdicts.poll(0.5)]):
        assert time.monotonic() < deadline_s
    verdicts.close()
    assert received == [VERDICT]
    with pytest.raises(Unavailable, match="image-verdicts"):
        VerdictsReader(uploader)


def upload(settings: KafkaSettings) -> None:
    producer = EventsProducer(settings)
    producer.send(ImageUpload(image_id="a", data_base64=b"picture"))
    producer.flush()


def as_user(cluster: KafkaCluster, user: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=cluster.secured_servers,
        security_protocol="sasl_ssl",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=user,
        sasl_password=SecretStr(USERS[user]),
        ssl_ca_file=str(cluster.ca_file),
        embeddings_topic="image-embeddings",
        banks_topic="image-banks",
        rematches_topic="image-rematches",
        feedback_topic="image-feedback",
        audit_topic="image-audit",
    )


def grant(cluster: KafkaCluster, rules: list[Manifest], user: str) -> None:
    """Put access lists, as Strimzi writes them, into force on a broker."""
    kinds = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactionalId": ResourceType.TRANSACTIONAL_ID}
    patterns = {"literal": ResourcePatternType.LITERAL, "prefix": ResourcePatternType.PREFIXED}
    operations = {
        "Read": AclOperation.READ,
        "Write": AclOperation.WRITE,
        "Describe": AclOperation.DESCRIBE,
        "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    }
    cluster.apply_rules(
        AclBinding(
            kinds[rule["resource"]["type"]],
            rule["resource"]["name"],
            patterns[rule["resource"]["patternType"]],
            f"User:{user}",
            "*",
            operations[operation],
            AclPermissionType.ALLOW,
        )
        for rule in rules
        for operation in rule["operations"]
    )
