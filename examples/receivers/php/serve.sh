#!/bin/sh
# The web server that comes with PHP and the worker, both until Ctrl-C. Not for production.
set -eu
php -r 'require "verify.php"; keysOf(getenv("WEBHOOK_SECRET") ?: "");'
php worker.php &
trap 'kill $!' EXIT
PHP_CLI_SERVER_WORKERS=4 php -d display_errors=stderr -S "127.0.0.1:${PORT:-8000}" index.php
