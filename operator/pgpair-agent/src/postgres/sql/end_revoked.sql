-- Ends the sessions whose client has shown a certificate with one of the serial numbers $1, and names the roles.
WITH revoked AS MATERIALIZED (
    SELECT s.pid, a.usename::text AS role FROM pg_stat_ssl s JOIN pg_stat_activity a ON a.pid = s.pid
    WHERE s.client_serial::text = ANY ($1)
)
SELECT COALESCE(string_agg(DISTINCT role, ', ') FILTER (WHERE pg_terminate_backend(pid)), '') FROM revoked
