-- What differs whenever anything that objects.sql and edges.sql look at does, and costs little to ask: how many rows
-- there are, and the sum of the transactions that made them. A row that is changed is a new one, and made by a
-- later transaction than any that it takes the place of. What is temporary is left out, as there.
WITH lasting AS (SELECT oid, xmin FROM pg_class WHERE relpersistence <> 't')
SELECT concat_ws(' ', count(*), sum(made::text::bigint)) AS mark
  FROM (SELECT xmin AS made FROM lasting
        UNION ALL SELECT a.xmin FROM pg_attribute a JOIN lasting c ON c.oid = a.attrelid WHERE a.attnum > 0
        UNION ALL SELECT w.xmin FROM pg_rewrite w JOIN lasting c ON c.oid = w.ev_class
        UNION ALL SELECT t.xmin FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname !~ '^pg_temp'
        UNION ALL SELECT i.xmin FROM pg_inherits i JOIN lasting c ON c.oid = i.inhrelid
        UNION ALL SELECT xmin FROM pg_constraint WHERE contypid <> 0
        UNION ALL SELECT xmin FROM pg_policy
        UNION ALL SELECT xmin FROM pg_proc
        UNION ALL SELECT xmin FROM pg_language
        UNION ALL SELECT xmin FROM pg_aggregate
        UNION ALL SELECT xmin FROM pg_operator
        UNION ALL SELECT xmin FROM pg_range
        UNION ALL SELECT xmin FROM pg_cast
        UNION ALL SELECT xmin FROM pg_amop
        UNION ALL SELECT xmin FROM pg_amproc
        UNION ALL SELECT xmin FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)') AS rows
