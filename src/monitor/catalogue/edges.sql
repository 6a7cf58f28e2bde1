-- Which object uses which, as sql::catalogue::Edge. T is a type that is named, t one whose values are used.
-- What a function is called with and gives.
SELECT 'f'::"char" AS user_kind, p.oid AS user_oid, 'T'::"char" AS used_kind, t.oid AS used_oid
  FROM pg_proc p, unnest(p.proargtypes::oid[] || p.prorettype || coalesce(p.proallargtypes, '{}')) AS t (oid)
 WHERE p.oid >= 16384 AND t.oid >= 16384
UNION
-- An aggregate's functions.
SELECT 'f', a.aggfnoid, 'f', f.oid
  FROM pg_aggregate a,
       unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn,
                    aggmtransfn, aggminvtransfn, aggmfinalfn]::oid[]) AS f (oid)
 WHERE a.aggfnoid >= 16384 AND f.oid <> 0
UNION
SELECT 'o', o.oid, 'f', o.oprcode::oid FROM pg_operator o WHERE o.oid >= 16384 AND o.oprcode <> 0
UNION
-- To name a type is to use it.
SELECT 'T', t.oid, 't', t.oid FROM pg_type t WHERE t.oid >= 16384
UNION
SELECT 'T', t.oid, 'f', f.oid
  FROM pg_type t, unnest(ARRAY[typinput, typreceive, typmodin]::oid[]) AS f (oid)
 WHERE t.oid >= 16384 AND f.oid <> 0
UNION
SELECT 't', t.oid, 'f', f.oid
  FROM pg_type t, unnest(ARRAY[typoutput, typsend, typmodout]::oid[]) AS f (oid)
 WHERE t.oid >= 16384 AND f.oid <> 0
UNION
-- A type is made of others: elements, a domain's base, a range's bounds, a row's columns.
SELECT kind, made.oid, kind, made.of
  FROM (SELECT t.oid, of FROM pg_type t, unnest(ARRAY[t.typelem, t.typbasetype]) AS of
        UNION ALL SELECT rngtypid, rngsubtype FROM pg_range
        UNION ALL SELECT rngmultitypid, rngtypid FROM pg_range
        UNION ALL
        SELECT t.oid, a.atttypid FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
         WHERE t.typtype = 'c' AND a.attnum > 0) AS made,
       (VALUES ('T'::"char"), ('t')) AS kinds (kind)
 WHERE made.oid >= 16384 AND made.of >= 16384
UNION
-- A domain's constraints, a range's own functions.
SELECT 'T', c.contypid, CASE d.refclassid WHEN 'pg_proc'::regclass THEN 'f' WHEN 'pg_operator'::regclass THEN 'o'
                             WHEN 'pg_type'::regclass THEN 'T' ELSE 'r' END::"char", d.refobjid
  FROM pg_constraint c JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
 WHERE c.contypid <> 0 AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
       AND d.refobjid <> c.contypid
UNION
SELECT 't', r.rngtypid, 'f', f.oid
  FROM pg_range r, unnest(ARRAY[rngcanonical, rngsubdiff]::oid[]) AS f (oid)
 WHERE r.rngtypid >= 16384 AND f.oid <> 0
UNION
-- Casts: one that is written names its target; one that is not happens to values in use.
SELECT CASE WHEN t.oid < 16384 THEN 'e' WHEN t.oid = c.casttarget AND c.castcontext <> 'i' THEN 'T' ELSE 't' END::"char",
       CASE WHEN t.oid < 16384 THEN 0 ELSE t.oid END, 'f', c.castfunc
  FROM pg_cast c, unnest(CASE WHEN c.castsource < 16384 OR c.casttarget < 16384
                              THEN ARRAY[greatest(c.castsource, c.casttarget)]
                              ELSE ARRAY[c.castsource, c.casttarget] END) AS t (oid)
 WHERE c.oid >= 16384 AND c.castfunc <> 0
UNION
-- How values are compared and hashed.
SELECT 't', p.amproclefttype, 'f', p.amproc::oid
  FROM pg_amproc p WHERE p.oid >= 16384 AND p.amproclefttype >= 16384
UNION
SELECT 't', o.amoplefttype, 'o', o.amopopr
  FROM pg_amop o WHERE o.oid >= 16384 AND o.amoplefttype >= 16384
UNION
SELECT 'r', a.attrelid, 't', a.atttypid
  FROM pg_attribute a WHERE a.attrelid >= 16384 AND a.atttypid >= 16384 AND a.attnum > 0
UNION
SELECT 'r', i.inhparent, 'r', i.inhrelid FROM pg_inherits i
UNION
-- Views, policies of tables that have them in force, partition keys.
SELECT 'r', owner.oid, CASE d.refclassid WHEN 'pg_proc'::regclass THEN 'f' WHEN 'pg_operator'::regclass THEN 'o'
                             WHEN 'pg_type'::regclass THEN 'T' ELSE 'r' END::"char", d.refobjid
  FROM pg_depend d
  JOIN (SELECT 'pg_rewrite'::regclass::oid AS class, w.oid AS object, w.ev_class AS oid
          FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE c.relkind = 'v' AND w.ev_type = '1'
        UNION ALL
        SELECT 'pg_policy'::regclass, p.oid, p.polrelid
          FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
         WHERE c.relrowsecurity AND p.polcmd IN ('r', '*')
        UNION ALL
        SELECT 'pg_class'::regclass, c.oid, c.oid FROM pg_class c WHERE c.relkind = 'p') AS owner
    ON owner.class = d.classid AND owner.object = d.objid
 WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_class'::regclass)
       AND (owner.class <> 'pg_class'::regclass OR d.refclassid <> 'pg_class'::regclass)
       AND d.refobjid <> owner.oid
