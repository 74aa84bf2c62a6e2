#!/bin/sh
# The part of the official image's entry point that the compose file uses: a new cluster with one user and database.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA.new"
  chmod 700 "$PGDATA.new"
  printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
  initdb -D "$PGDATA.new" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 --locale=C
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA.new/pg_hba.conf"
  pg_ctl -D "$PGDATA.new" -w start -o "-c listen_addresses='' -c unix_socket_directories=/tmp"
  PGPASSWORD="$POSTGRES_PASSWORD" createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB" || true
  pg_ctl -D "$PGDATA.new" -w stop
  mv "$PGDATA.new" "$PGDATA"
fi
exec "$@" -D "$PGDATA" -c "listen_addresses=*" -c unix_socket_directories=/var/run/postgresql
