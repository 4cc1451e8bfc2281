-- Run once by a superuser, with psql: database and owner of the views; and two roles that may read what the schema `live` shows and change
-- nothing: `grafana`, and `seal`, which signs the digest there and must not be able to make it. Their passwords are in the environment:
-- AIDTRAIL_VIEWS_PASSWORD, GRAFANA_VIEWS_PASSWORD and SEAL_VIEWS_PASSWORD. They may be changed later by ALTER ROLE.
\set ON_ERROR_STOP on
\getenv views_password AIDTRAIL_VIEWS_PASSWORD
\getenv grafana_password GRAFANA_VIEWS_PASSWORD
\getenv seal_password SEAL_VIEWS_PASSWORD

CREATE ROLE aidtrail LOGIN PASSWORD :'views_password';
CREATE ROLE grafana LOGIN PASSWORD :'grafana_password' CONNECTION LIMIT 10;
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '30s';
CREATE ROLE seal LOGIN PASSWORD :'seal_password' CONNECTION LIMIT 2; -- it opens one; another may still be open after a crash
ALTER ROLE seal SET default_transaction_read_only = on;
ALTER ROLE seal SET statement_timeout = '30s';
CREATE DATABASE aidtrail OWNER aidtrail;
REVOKE ALL ON DATABASE aidtrail FROM PUBLIC;
GRANT CONNECT ON DATABASE aidtrail TO grafana, seal;

\connect aidtrail
-- Only this schema: its views are read with their owner's rights, and the builds behind them stay out of reach.
CREATE SCHEMA live AUTHORIZATION aidtrail;
GRANT USAGE ON SCHEMA live TO grafana, seal;
ALTER DEFAULT PRIVILEGES FOR ROLE aidtrail IN SCHEMA live GRANT SELECT ON TABLES TO grafana, seal; -- going live makes the views anew
