#!/usr/bin/env bash
# run_blocks.sh DOCUMENT PROGRAM — runs every ```bash block of a document, in order, in a copy of the repository's root.
#
# A block behind `<!-- file: PATH -->` is written to that file first. `./dev run ARGS` runs PROGRAM, which is built
# already; the verbs that set up, build and test are what started this test and are left out.
#
# A block behind `<!-- terminal -->` runs beside the following ones until the end. A document with `<!-- needs: flower -->` has Flower's
# programs in its path, free ports for 8000 and 8001, and is skipped (4) where Flower is not installed.
set -euo pipefail
document=$(realpath "$1") program=$(realpath "$2")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
terminals=()
leave() {
  for terminal in "${terminals[@]}"; do kill -- "-$terminal" 2>/dev/null || true; done
  for terminal in "${terminals[@]}"; do wait "$terminal" 2>/dev/null || true; done
  rm -rf "$scratch"
}
trap leave EXIT
cd "$scratch"
for entry in configs docs benchmarks plugins tests engine; do ln -s "$root/$entry" "$entry"; done
mkdir build runs blocks
ln -s "$(dirname "$(dirname "$program")")" build/release
cat >dev <<STUB
#!/usr/bin/env bash
case "\$1" in
  run) shift; exec "$program" "\$@" ;;
  parity) shift; exec "$(dirname "$program")/parity" "\$@" ;;
  setup | build | test | demo) ;;
  *) echo "the stub of ./dev has no verb '\$1'" >&2; exit 1 ;;
esac
STUB
chmod +x dev

awk '
  /^<!-- file: / { file = $3; next }
  /^<!-- terminal -->/ { beside = 1; next }
  /^```/ && inside { close(target); inside = 0; file = ""; beside = 0; next }
  /^```bash$/ { target = sprintf("blocks/%03d.%s", ++count, beside ? "terminal.sh" : "sh"); inside = 1; print "# line " NR > target; next }
  /^```/ && file != "" { target = sprintf("blocks/%03d.sh", ++count); inside = 1; here = file
    print "mkdir -p \"$(dirname " file ")\"; cp blocks/" sprintf("%03d.body", count) " " file > target; close(target)
    target = sprintf("blocks/%03d.body", count); next }
  /^```/ { target = "/dev/null"; inside = 1; next }
  inside { print > target }
' "$document"

if grep -q '^<!-- needs: flower -->' "$document"; then
  python=$(python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import flower_env; print(flower_env.find_flower() or "")' "$root/tests/tools")
  [ -n "$python" ] || { echo "skipped: Flower is not installed; ./dev setup --tests does that"; exit 4; }
  export PATH="$(dirname "$python"):$PATH" FLWR_HOME="$scratch/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
  ports=$(python3 -c 'import socket; s = [socket.create_server(("127.0.0.1", 0)) for _ in "ab"]; print(*(x.getsockname()[1] for x in s))')
  sed -i -E "s/\\b8000\\b/${ports% *}/g; s/\\b8001\\b/${ports#* }/g" blocks/*
fi

shopt -s nullglob
blocks=(blocks/*.sh)
[ ${#blocks[@]} -gt 0 ] || { echo "$document: has no command"; exit 1; }
for block in "${blocks[@]}"; do
  echo "== $(basename "$document"), block $(basename "$block" .sh): $(head -2 "$block" | tail -1)"
  if [[ $block == *.terminal.sh ]]; then
    setsid bash -euo pipefail "$block" </dev/null >"$block.log" 2>&1 &
    terminals+=($!)
    for port in $(grep -oE -- '--port [0-9]+' "$block" | cut -d' ' -f2); do # a server: what follows finds it there
      timeout 120 bash -c "until (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; do sleep 0.2; done" || { cat "$block.log"; exit 1; }
    done
    continue
  fi
  bash -euo pipefail "$block" </dev/null || { echo "failed:"; cat "$block"; tail -n 20 blocks/*.log 2>/dev/null || true; exit 1; }
done
