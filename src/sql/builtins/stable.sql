-- Prints stable.txt: the names in pg_catalog of which no overload is volatile and which SQL can
-- call. Run it on a new major version (psql -At -f stable.sql postgres), review what is new, and
-- put what is not harmless into reviewed.txt, which wins.
SELECT proname
FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace
GROUP BY proname
HAVING NOT bool_or(provolatile = 'v')
   AND NOT bool_and('internal'::regtype = ANY (proargtypes)
                    OR prorettype IN ('internal'::regtype, 'trigger'::regtype,
                                      'event_trigger'::regtype, 'index_am_handler'::regtype,
                                      'table_am_handler'::regtype, 'tsm_handler'::regtype,
                                      'fdw_handler'::regtype, 'language_handler'::regtype))
   AND proname NOT LIKE 'pg\_stat\_get\_%'
ORDER BY proname COLLATE "C";
