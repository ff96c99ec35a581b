#!/bin/sh
# Run once by the Postgres image: a plain role, its database, and the extension.
set -e
psql --set ON_ERROR_STOP=1 --set password="${MEMORY_PASSWORD:-$POSTGRES_PASSWORD}" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'password';
CREATE DATABASE memory OWNER app TEMPLATE template0 ENCODING 'UTF8';
\c memory
CREATE EXTENSION vector;
SQL
