// Validates custom resources by the schemas of their operators: a JSON array on standard input; one line a problem.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const packages = {
  "keda.sh": "keda",
  "kafka.strimzi.io": "strimzi-kafka-operator",
  "monitoring.coreos.com": "prometheus-operator",
};
const folder = `${process.argv[2]}/node_modules/@kubernetes-models`;

let problems = 0;
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const [group, version] = resource.apiVersion.split("/");
  const name = `${resource.kind}/${resource.metadata.name}`;
  try {
    const file = `${folder}/${packages[group]}/${group}/${version}/${resource.kind}.js`;
    const { [resource.kind]: Kind } = await import(pathToFileURL(file));
    new Kind(resource).validate();
  } catch (error) {
    problems += 1;
    console.log(`${name}: ${error.message}`);
  }
}
process.exit(problems ? 1 : 0);
