-- The objects of a database as sql::catalogue::Object. Objects from 16384 on are not PostgreSQL's own
-- (manual, section "System Catalog Initial Data"). Temporary ones belong to one session and are left out.
-- The last three columns are of functions that are volatile, and whose bodies may show that they only read all the
-- same: not of procedures, triggers, and what runs with other rights or settings than its caller's. Longer bodies
-- hardly ever do, and would have to be sent each time. The parameters that are no text have no name; those of a
-- function that has others ahead of them, or any number, are left out.
SELECT 'f'::"char" AS kind, p.oid, n.nspname::text AS schema, p.proname::text AS name,
       CASE WHEN p.prokind = 'p' OR p.provolatile = 'v' THEN 'v' ELSE 'p' END::"char" AS nature,
       p.pronargs - p.pronargdefaults <= 1 AND (p.pronargs > 0 OR p.provariadic <> 0) AS takes_one_argument,
       CASE WHEN p.oid < 16384 OR may.read THEN ''
            WHEN l.lanname = 'internal'
            THEN (SELECT coalesce(string_agg(b.proname || '()', ' '), 'is not known')
                    FROM pg_proc b
                   WHERE b.prosrc = p.prosrc AND b.pronamespace = 'pg_catalog'::regnamespace)
            WHEN l.lanname = 'c' THEN ''
            ELSE concat_ws(' ', p.prosrc, pg_get_function_sqlbody(p.oid)) END
       || coalesce(' ' || pg_get_expr(p.proargdefaults, 0), '') AS text,
       CASE WHEN may.read THEN left(l.lanname, 1) ELSE '' END::"char" AS language,
       CASE WHEN may.read THEN body.source ELSE '' END AS source,
       CASE WHEN may.read AND p.provariadic = 0 AND ('i' = ALL (p.proargmodes[1:p.pronargs])) IS NOT FALSE
            THEN ARRAY(SELECT CASE WHEN given.type IN ('text'::regtype, 'varchar'::regtype)
                                   THEN coalesce(p.proargnames[given.place], '') END
                         FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS given (type, place)
                        ORDER BY given.place)
            ELSE '{}' END AS parameters
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
       JOIN pg_language l ON l.oid = p.prolang,
       LATERAL (SELECT CASE WHEN p.prosqlbody IS NULL THEN p.prosrc
                            ELSE pg_get_function_sqlbody(p.oid) END AS source) AS body,
       LATERAL (SELECT p.oid >= 16384 AND p.provolatile = 'v' AND p.prokind = 'f'
                       AND l.lanname IN ('sql', 'plpgsql')
                       AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
                       AND NOT p.prosecdef AND p.proconfig IS NULL
                       AND octet_length(body.source) <= 16384 AS read) AS may
 WHERE p.oid >= 16384 OR n.nspname <> 'pg_catalog'
UNION ALL
SELECT 'b'::"char", p.oid, 'pg_catalog', p.proname, 'p'::"char", false, '', ''::"char", '', NULL::text[]
  FROM pg_proc p
 WHERE p.oid < 16384 AND p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile <> 'i'
       AND 'internal'::regtype <> ALL (p.proargtypes)
UNION ALL
SELECT 'o', o.oid, n.nspname, o.oprname, 'p'::"char", false, '', '', '', NULL
  FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
 WHERE o.oid >= 16384
UNION ALL
SELECT kind, t.oid, n.nspname, t.typname, 'p'::"char", false,
       CASE kind WHEN 'T'
            THEN coalesce((SELECT string_agg(pg_get_constraintdef(c.oid), ' ')
                             FROM pg_constraint c WHERE c.contypid = t.oid), '')
            ELSE '' END, '', '', NULL
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace,
       (VALUES ('T'::"char"), ('t')) AS kinds (kind)
 WHERE n.nspname !~ '^pg_(toast|temp)' AND (kind = 'T' OR t.oid >= 16384)
UNION ALL
SELECT 'r', c.oid, n.nspname, c.relname,
       CASE WHEN c.relkind = 'S' THEN 's' WHEN c.relpersistence = 'u' THEN 'u'
            WHEN c.relkind = 'f' THEN 'f' ELSE 'p' END::"char",
       false,
       CASE WHEN c.relkind = 'v' AND c.oid >= 16384 THEN pg_get_viewdef(c.oid)
            WHEN c.relrowsecurity
            THEN coalesce((SELECT string_agg(pg_get_expr(p.polqual, p.polrelid), ' ')
                             FROM pg_policy p
                            WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*')), '')
            ELSE '' END, '', '', NULL
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp)'
UNION ALL
SELECT 'e', 0, '', '', 'p'::"char", false, '', '', '', NULL
