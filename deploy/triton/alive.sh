#!/bin/sh
# Encodes one blank picture; ends with 0 if that works or the server is merely busy. Triton's own health stays good when the process behind a model
# has died.     alive [http://host:8000] [model]
set -eu
model=${1:-http://127.0.0.1:8000}/v2/models/${2:-image_encoder}
size=$(curl --silent --fail --max-time 5 "$model/config" \
  | sed -n 's/.*"input_size":{"string_value":"\([0-9]*\)"}.*/\1/p')
bytes=$((size * size * 3))
tensor="{\"name\":\"images\",\"shape\":[1,$size,$size,3],\"datatype\":\"UINT8\",\"parameters\":{\"binary_data_size\":$bytes}}"
header="{\"inputs\":[$tensor]}"
status=$({ printf '%s' "$header"; head -c "$bytes" /dev/zero; } \
  | curl --silent --max-time 8 --output /dev/null --write-out '%{http_code}' --data-binary @- \
    --header 'Content-Type: application/octet-stream' \
    --header "Inference-Header-Content-Length: ${#header}" "$model/infer")
# 503 is a full queue: busy, and starting again would make it no shorter.
test "$status" = 200 || test "$status" = 503
