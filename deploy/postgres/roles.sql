-- Run once by a superuser, with psql: database and owner of the views, and a role that may read what the schema `live` shows, for Grafana.
-- The passwords are in the environment: AIDTRAIL_VIEWS_PASSWORD and GRAFANA_VIEWS_PASSWORD. Both may be changed later by ALTER ROLE.
\set ON_ERROR_STOP on
\getenv views_password AIDTRAIL_VIEWS_PASSWORD
\getenv grafana_password GRAFANA_VIEWS_PASSWORD

CREATE ROLE aidtrail LOGIN PASSWORD :'views_password';
CREATE ROLE grafana LOGIN PASSWORD :'grafana_password' CONNECTION LIMIT 10;
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '30s';
CREATE DATABASE aidtrail OWNER aidtrail;
REVOKE ALL ON DATABASE aidtrail FROM PUBLIC;
GRANT CONNECT ON DATABASE aidtrail TO grafana;

\connect aidtrail
-- Only this schema: its views are read with their owner's rights, and the builds behind them stay out of reach.
CREATE SCHEMA live AUTHORIZATION aidtrail;
GRANT USAGE ON SCHEMA live TO grafana;
ALTER DEFAULT PRIVILEGES FOR ROLE aidtrail IN SCHEMA live GRANT SELECT ON TABLES TO grafana; -- going live makes the views anew
