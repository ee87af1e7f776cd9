#!/usr/bin/env bash
# Tries Dockerfile and docker-compose.yml as they are, with a real engine, on a Debian 12 machine that can reach package
# archives but no image registry. As root, after `make setup`. Takes some minutes. It takes everything down again, but for
# the packages that it installed and the engine's own bridge docker0.
#
#     deploy/try-compose.sh                         # all services that the image has
#     SERVICES="detector" deploy/try-compose.sh     # some of them
#     BASES=/var/tmp/bases deploy/try-compose.sh    # keep the base images there for the next time
#
# The published images cannot be had here, so base images are made from Debian's packages and from Kafka's jars, under the
# published names. What this proves: our own two files, the order of starting, health checks, a restart, and one event on
# its way. What it does not prove: that the published images behave in the same way.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

((EUID == 0)) || { echo "This has to run as root: it starts a container engine." >&2; exit 2; }
[[ -x .venv/bin/python ]] || { echo "Run make setup first." >&2; exit 2; }

read -ra SERVICES <<<"${SERVICES:-detector composer dispatcher followup}"
declare -A PORTS=([detector]=8081 [composer]=8082 [dispatcher]=8083 [followup]=8084)
SCRATCH=$(mktemp -d /var/tmp/headsup-compose.XXXXXX)
BASES=${BASES:-$SCRATCH/bases}
export DOCKER_HOST=unix://$SCRATCH/docker.sock DOCKER_CONFIG=$SCRATCH/config DEBIAN_FRONTEND=noninteractive
ENGINE=

say() { printf '\n== %4d s  %s\n' "$SECONDS" "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
compose() { docker compose --ansi never --project-name headsup-try --env-file "$SCRATCH/env" "$@"; }

# until_true SECONDS COMMAND...: tries once a second.
until_true() {
    local left=$1
    shift
    until "$@" >/dev/null 2>&1; do
        ((left-- > 0)) || return 1
        sleep 1
    done
}

clean_up() {
    local code=$?
    if [[ -n $ENGINE ]]; then
        if [[ -e $SCRATCH/env ]]; then
            if ((code)); then compose ps --all; compose logs --tail 10; fi || true
            say "taking it all down"
            compose --profile observe down --volumes --timeout 20 || true
        fi
        kill "$ENGINE" && wait "$ENGINE" || true
    fi
    rm -rf "$SCRATCH"
    ((code == 0)) && say "done: all of it works" || say "ended with code $code"
}
trap clean_up EXIT

# The address of Debian's archive, as this machine's own apt knows it.
archive() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1; }

install_tools() {
    say "installing the engine"
    apt-get update -qq
    # The packages would start services of their own; here only what this script starts is to run.
    local mine=
    [[ -e /usr/sbin/policy-rc.d ]] || { mine=1; printf '#!/bin/sh\nexit 101\n' | install /dev/stdin /usr/sbin/policy-rc.d; }
    apt-get install -y -qq --no-install-recommends curl docker.io iptables mmdebstrap >/dev/null
    [[ -z $mine ]] || rm /usr/sbin/policy-rc.d
    # Debian 12's compose is too old for `name:` and needs Python; the next release's are single files that run here too.
    local apt=(apt-get -q -o Dir::Etc::sourcelist="$SCRATCH/next.list" -o Dir::Etc::sourceparts=-
        -o Dir::State::lists="$SCRATCH/lists" -o Dir::Cache="$SCRATCH/cache" -o APT::Sandbox::User=root)
    mkdir -p "$SCRATCH"/{lists,cache,unpacked} "$DOCKER_CONFIG/cli-plugins"
    echo "deb $(archive) trixie main" >"$SCRATCH/next.list"
    "${apt[@]}" update >/dev/null
    (cd "$SCRATCH/cache" && "${apt[@]}" download docker-compose docker-buildx >/dev/null)
    for package in "$SCRATCH"/cache/*.deb; do dpkg -x "$package" "$SCRATCH/unpacked"; done
    find "$SCRATCH/unpacked" -path '*cli-plugins/*' -type f -exec install -t "$DOCKER_CONFIG/cli-plugins" {} +
    docker compose version
}

start_engine() {
    say "starting an engine of our own"
    dockerd --host "$DOCKER_HOST" --data-root "$SCRATCH/data" --exec-root "$SCRATCH/exec" \
        --pidfile "$SCRATCH/docker.pid" >"$SCRATCH/dockerd.log" 2>&1 &
    ENGINE=$!
    until_true 60 docker version || { tail -n 20 "$SCRATCH/dockerd.log"; fail "the engine did not start"; }
    docker version --format 'engine {{.Server.Version}}'
}

# base NAME SUITE PACKAGES [HOOK...]: a root folder from Debian's packages as a tar file.
base() {
    local name=$1 suite=$2 packages=$3
    shift 3
    [[ -s $BASES/$name.tar ]] && return
    mmdebstrap --quiet --variant=minbase --include="$packages" "$@" \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin' "$suite" "$SCRATCH/$name.tar" "$(archive)"
    mv "$SCRATCH/$name.tar" "$BASES/"
}

make_python() {
    # How this machine reaches the package index is its own affair: it goes into the base, never into our Dockerfile.
    local bundle=/etc/ssl/certs/ca-certificates.crt
    { echo "[global]"; .venv/bin/pip config list | sed -n "s/^\(global\|:env:\)\.\(index-url\|extra-index-url\|cert\)='\(.*\)'$/\2 = \3/p" | sort -u -t= -k1,1; } \
        >"$SCRATCH/pip.conf"
    base python bookworm ca-certificates,python3,python3-venv \
        --customize-hook="upload $bundle $bundle" --customize-hook="upload $SCRATCH/pip.conf /etc/pip.conf" \
        --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"'
    docker import "$BASES/python.tar" python:3.11-slim-bookworm >/dev/null
}

make_postgres() {
    cat >"$SCRATCH/postgres-entrypoint" <<'END'
#!/bin/bash
# As much of the published image's entrypoint as the compose file asks for: the first start makes the data folder.
set -euo pipefail
bin=/usr/lib/postgresql/17/bin data=/var/lib/postgresql/data
if [[ $(id -u) == 0 ]]; then
    chown postgres: "$data" /run/postgresql && chmod 700 "$data"
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
if [[ ! -s $data/PG_VERSION ]]; then
    "$bin/initdb" -D "$data" -U "$POSTGRES_USER" -A scram-sha-256 --locale C.UTF-8 --pwfile <(echo "$POSTGRES_PASSWORD")
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    "$bin/pg_ctl" -D "$data" -w -o "-c listen_addresses=''" start
    PGPASSWORD=$POSTGRES_PASSWORD createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
    "$bin/pg_ctl" -D "$data" -m fast -w stop
fi
exec "$bin/postgres" -D "$data" -c listen_addresses='*'
END
    chmod +x "$SCRATCH/postgres-entrypoint"
    base postgres trixie postgresql-17 --customize-hook="upload $SCRATCH/postgres-entrypoint /entrypoint" \
        --customize-hook='chmod 755 "$1/entrypoint"; mkdir -p "$1/var/lib/postgresql/data"'
    docker import --change 'ENTRYPOINT ["/entrypoint"]' --change 'VOLUME /var/lib/postgresql/data' \
        "$BASES/postgres.tar" postgres:17-trixie >/dev/null
}

make_kafka() {
    local jars
    jars=$(.venv/bin/python -m tests.support.kafka --fetch-only)
    cat >"$SCRATCH/kafka-entrypoint" <<'END'
#!/bin/bash
# The class that the published image starts with turns KAFKA_… variables into a configuration and formats the storage.
# As there, storage that is formatted already is no failure.
set -euo pipefail
told=$(java -cp '/opt/kafka/libs/*' kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \
    --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config 2>&1) ||
    grep 'already formatted' <<<"$told" || { echo "$told"; exit 1; }
exec java $KAFKA_HEAP_OPTS -Dlog4j2.level=INFO -cp '/opt/kafka/libs/*' kafka.Kafka /opt/kafka/config/server.properties
END
    base kafka bookworm openjdk-17-jre-headless \
        --customize-hook='cd "$1" && mkdir -p opt/kafka/libs opt/kafka/config etc/kafka/docker mnt/shared/config var/lib/kafka/data' \
        --customize-hook="sync-in $jars /opt/kafka/libs" \
        --customize-hook="upload $SCRATCH/kafka-entrypoint /entrypoint" \
        --customize-hook='cd "$1" && chmod 755 entrypoint && cd etc/kafka/docker && touch server.properties log4j2.yaml tools-log4j2.yaml' \
        --customize-hook='chroot "$1" useradd --uid 1000 appuser && chroot "$1" chown -R appuser /opt/kafka/config /var/lib/kafka/data'
    docker import --change 'ENTRYPOINT ["/entrypoint"]' --change 'USER appuser' --change 'VOLUME /var/lib/kafka/data' \
        --change 'ENV CLUSTER_ID=5L6g3nShT-eMCtK--X86sw' "$BASES/kafka.tar" apache/kafka:4.4.0 >/dev/null
}

make_prometheus() {
    base prometheus bookworm prometheus,wget --customize-hook='mkdir "$1/prometheus" && chroot "$1" chown nobody /prometheus'
    docker import --change 'ENTRYPOINT ["/usr/bin/prometheus"]' --change 'USER nobody' --change 'VOLUME /prometheus' \
        --change 'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]' \
        "$BASES/prometheus.tar" prom/prometheus:v3.5.0 >/dev/null
}

get() { curl -fsS --max-time 5 "$@"; }

# One order that is paid now and promised too soon: the detector has to open an incident for it.
publish() {
    local now promise
    now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    promise=$(date -u -d '+6 hours' +%Y-%m-%dT%H:%M:%SZ)
    # Generous: after Kafka's restart the service's producer has to find it again.
    get --max-time 30 "http://127.0.0.1:${PORTS[detector]}/v1/events" -H "Authorization: Bearer $HEADSUP_API_KEY" \
        -H 'Content-Type: application/cloudevents+json' -d @- <<END | tee "$SCRATCH/answer"
{"specversion":"1.0","id":"$1-paid","source":"try","type":"order.paid.v1","time":"$now","data":{"order_id":"$1",
"store_id":"shop-1","customer":{"id":"c-1","nickname":"小鱼","phone":"13812345678"},"lines":[{"sku":"SCARF","name":"羊绒围巾",
"variant":"雾蓝","quantity":1,"unit_price":"129.00"}],"total":"129.00","currency":"CNY","paid_at":"$now","promise_ship_by":"$promise"}}
END
    echo
    grep -q '"accepted":1' "$SCRATCH/answer" || fail "the event was refused"
}

# Reads the topic from inside, with the client that the image has.
incident_of() {
    compose exec -T -e ORDER="$1" detector python - <<'END'
import asyncio, json, os
from aiokafka import AIOKafkaConsumer

async def main():
    consumer = AIOKafkaConsumer("headsup.incidents.v1", bootstrap_servers="kafka:9092", auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            async for record in consumer:
                if record.key == os.environ["ORDER"].encode():
                    incident = json.loads(record.value)
                    return print("incident of", incident["order_id"], "-", incident["reason"])
    finally:
        await consumer.stop()

asyncio.run(main())
END
}

# What Prometheus knows: `asked QUERY` prints the JSON.
asked() { get -G http://127.0.0.1:9090/api/v1/query --data-urlencode "query=$1"; }
scraped() { asked 'sum(up{job="headsup"})' | grep "\"${#SERVICES[@]}\"\]"; }

all_ready() {
    local one
    for one in "${SERVICES[@]}"; do get "http://127.0.0.1:${PORTS[$one]}/readyz" >/dev/null || return 1; done
}

install_tools
say "making base images"
mkdir -p "$BASES"
start_engine
make_python
make_postgres
make_kafka
make_prometheus
docker images --format '{{.Repository}}:{{.Tag}} {{.Size}}'

deploy/make-env.sh "$SCRATCH/env"
. "$SCRATCH/env"

say "building the image and starting ${SERVICES[*]}"
compose up --detach --wait --wait-timeout 240 "${SERVICES[@]}"
compose ps --format '{{.Service}} {{.Status}}'
docker images headsup --format '{{.Repository}}:{{.Tag}} {{.Size}}'
for service in "${SERVICES[@]}"; do [[ $(compose exec -T "$service" id -u) == 10001 ]] || fail "$service runs as somebody else"; done
all_ready || fail "a service is not ready"
[[ $(docker inspect --format '{{.State.ExitCode}}' "$(compose ps --all --quiet prepare)") == 0 ]] || fail "prepare failed"

say "one event"
publish TRY-1
incident_of TRY-1
for service in "${SERVICES[@]}"; do
    get "http://127.0.0.1:${PORTS[$service]}/metrics" | grep "^headsup_outbox_messages{service=\"$service\"}" >/dev/null ||
        fail "$service has no metrics"
done

for service in detector kafka postgres; do
    say "restarting $service"
    compose restart --timeout 30 "$service"
    compose up --detach --wait --wait-timeout 120 --no-deps "$service"
    until_true 90 all_ready || fail "not ready after $service was restarted"
    publish "TRY-$service"
    incident_of "TRY-$service"
done

say "watching"
compose --profile observe up --detach --wait --wait-timeout 60 prometheus
until_true 60 scraped || fail "Prometheus does not see ${SERVICES[*]}: $(asked up)"
get http://127.0.0.1:9090/api/v1/rules | grep -o '"name":"Headsup[A-Za-z0-9]*"' | wc -l | sed 's/$/ alert rules are loaded/'

say "running up again: prepare has nothing to do"
compose up --detach --wait --wait-timeout 120 "${SERVICES[@]}"
compose logs --no-log-prefix --since 1m prepare
all_ready || fail "a service is not ready"
