#!/usr/bin/env bash
# Installs what tests/browser drives, where it is missing and can be had: Chromium with its driver, and axe-core.
# Never fails: the tests say what they skip.
set -uo pipefail
cd "$(dirname "$0")/.."

have_browser() { { command -v chromium || command -v chromium-browser; } && command -v chromedriver; } >/dev/null
if ! have_browser && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  { timeout 60 apt-get update && timeout 150 apt-get install -y --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1
fi
have_browser || echo "chromium or chromedriver is not installed and cannot be here: the browser tests will be skipped"

if [ ! -e tests/browser/node_modules/axe-core/axe.min.js ] && command -v npm >/dev/null; then
  timeout 60 npm install --prefix tests/browser --no-audit --no-fund --no-package-lock --ignore-scripts >/dev/null 2>&1
fi
[ -e tests/browser/node_modules/axe-core/axe.min.js ] || echo "axe-core cannot be installed here: its rules will be skipped"
exit 0
