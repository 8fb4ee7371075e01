-- Whether an extension is there, and the schema that it must have; no row: the image does not have it. $1: its name.
SELECT EXISTS (SELECT FROM pg_extension e WHERE e.extname = v.name) AS is_there, v.schema::text AS schema
FROM pg_available_extension_versions v
WHERE v.name::text = $1
LIMIT 1
