"""What each kind of object is in the catalog: queries for its name and its definition, without any OID.

Each yields what the object belongs to (its table's name, or its own), its name, and its definition. They run
with an empty search path, so that the server itself writes every name with its schema, and quoted where it
needs quotes. A percent sign is doubled, for psycopg.
"""

# ruff: noqa: S608 # they are put together of constants alone
from __future__ import annotations

#: The schemas of the system, and of Lakebase.
_SYSTEM = """(
    n.nspname LIKE 'pg\\_%%' OR n.nspname IN ('information_schema', '__db_system')
)"""


def _own(catalog: str, alias: str) -> str:
    """That an object is the user's: not in the system's schemas, not an extension's, and not left out."""
    return f"""NOT {_SYSTEM} AND NOT EXISTS (
        SELECT FROM pg_depend e
        WHERE e.classid = '{catalog}'::regclass AND e.objid = {alias}.oid AND e.deptype = 'e'
    )"""


def _name(catalog: str, oid: str, part: str = "0") -> str:
    return f"(pg_identify_object('{catalog}'::regclass, {oid}, {part})).identity"


#: Tables, views and the like, and what hangs on them.
_RELATION = f"{_own('pg_class', 'c')} AND c.oid <> ALL (%(hidden)s::oid[])"
_FROM_RELATION = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"


def _listed(options: str) -> str:
    """An object's options in one order; NULL if there are none."""
    return f"(SELECT string_agg(o, ', ' ORDER BY o) FROM unnest({options}) o)"


_OPTIONS = f"coalesce(E'\\nWITH (' || {_listed('c.reloptions')} || ')', '')"
_OWNER = "E'\\nOWNER TO ' || quote_ident(pg_get_userbyid({}))"
_RELATION_NAME = _name("pg_class", "c.oid")


def _granted(catalog: str, acl: str, letter: str, owner: str, name: str, belongs: str, rest: str) -> str:
    """The privileges on a kind of object where they are not those with which it was made."""
    default = f"acldefault('{letter}', {owner})"
    return f"""
SELECT {belongs}, {name}, coalesce((
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
            || ': ' || string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION'
                ELSE '' END, ', ' ORDER BY a.privilege_type, a.is_grantable) AS line
        FROM aclexplode({acl}) a GROUP BY a.grantee
    ) lines
), 'nobody')
{rest} AND {acl} IS NOT NULL
    AND ARRAY(SELECT x::text FROM unnest({acl}) x ORDER BY 1)
        IS DISTINCT FROM ARRAY(SELECT x::text FROM unnest({default}) x ORDER BY 1)
"""


_SCHEMAS = f"FROM pg_namespace n WHERE {_own('pg_namespace', 'n')}"
#: The server makes functions for a range type, which go with it.
_ROUTINES = f"""FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {_own("pg_proc", "p")} AND NOT EXISTS (
    SELECT FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid AND i.deptype = 'i')"""
_TYPES = f"FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {_own('pg_type', 't')}"
_ROUTINE_NAME, _TYPE_NAME = _name("pg_proc", "p.oid"), _name("pg_type", "t.oid")
_SCHEMA_NAME = _name("pg_namespace", "n.oid")
_COLUMN_NAME = _name("pg_class", "c.oid", "a.attnum")
_COLLATED = """CASE WHEN {0}.{1} <> 0 AND {0}.{1} <> (
        SELECT x.typcollation FROM pg_type x WHERE x.oid = {2}
    ) THEN ' COLLATE ' || (pg_identify_object('pg_collation'::regclass, {0}.{1}, 0)).identity ELSE '' END"""

_COMMENTED = ", ".join(
    f"'{name}'::regclass"
    for name in (
        "pg_class",
        "pg_namespace",
        "pg_proc",
        "pg_type",
        "pg_constraint",
        "pg_trigger",
        "pg_policy",
        "pg_rewrite",
        "pg_statistic_ext",
    )
)

#: By kind, in the order in which a report has them.
QUERIES: dict[str, str] = {
    "extension": """
SELECT quote_ident(x.extname), quote_ident(x.extname),
    'VERSION ' || x.extversion || ' SCHEMA ' || quote_ident(n.nspname)
FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace WHERE x.extname <> 'plpgsql'
""",
    "schema": f"""
SELECT {_SCHEMA_NAME}, {_SCHEMA_NAME}, ltrim({_OWNER.format("n.nspowner")}, E'\\n') {_SCHEMAS}
""",
    "enum": f"""
SELECT {_TYPE_NAME}, {_TYPE_NAME}, 'ENUM (' || coalesce((
    SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
    FROM pg_enum e WHERE e.enumtypid = t.oid
), '') || ')' || {_OWNER.format("t.typowner")} {_TYPES} AND t.typtype = 'e'
""",
    "domain": f"""
SELECT {_TYPE_NAME}, {_TYPE_NAME}, 'DOMAIN ' || format_type(t.typbasetype, t.typtypmod)
    || {_COLLATED.format("t", "typcollation", "t.typbasetype")}
    || coalesce(' DEFAULT ' || t.typdefault, '') || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
    || {_OWNER.format("t.typowner")} {_TYPES} AND t.typtype = 'd'
""",
    "type": f"""
SELECT {_TYPE_NAME}, {_TYPE_NAME}, CASE t.typtype
    WHEN 'c' THEN '(' || coalesce((
        SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', '
            ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ), '') || ')'
    ELSE 'RANGE (SUBTYPE = ' || (
        SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = t.oid
    ) || ')' END || {_OWNER.format("t.typowner")}
{_TYPES} AND (t.typtype = 'r' OR t.typtype = 'c' AND (
    SELECT k.relkind FROM pg_class k WHERE k.oid = t.typrelid
) = 'c')
""",
    "sequence": f"""
SELECT {_RELATION_NAME}, {_RELATION_NAME}, 'AS ' || format_type(s.seqtypid, NULL) || ' START ' || s.seqstart
    || ' INCREMENT ' || s.seqincrement || ' MINVALUE ' || s.seqmin || ' MAXVALUE ' || s.seqmax
    || ' CACHE ' || s.seqcache || CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END
    || CASE c.relpersistence WHEN 'u' THEN ' UNLOGGED' ELSE '' END
    || coalesce((
        SELECT E'\\nOWNED BY ' || {_name("pg_class", "d.refobjid", "d.refobjsubid")} FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
            AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
    ), '') || {_OWNER.format("c.relowner")}
{_FROM_RELATION} JOIN pg_sequence s ON s.seqrelid = c.oid WHERE {_RELATION}
""",
    "table": f"""
SELECT {_RELATION_NAME}, {_RELATION_NAME}, CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END
    || CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END
    || coalesce(' OF ' || (SELECT {_TYPE_NAME} FROM pg_type t WHERE t.oid = nullif(c.reloftype, 0)), '')
    || coalesce((
        SELECT CASE WHEN c.relispartition THEN ' PARTITION OF ' ELSE ' INHERITS ' END || string_agg({
        _name("pg_class", "i.inhparent")
    }, ', ' ORDER BY i.inhseqno) || CASE WHEN bool_or(i.inhdetachpending) THEN ' DETACH PENDING' ELSE '' END
        FROM pg_inherits i WHERE i.inhrelid = c.oid
    ), '')
    || coalesce(' ' || pg_get_expr(c.relpartbound, c.oid), '')
    || coalesce(E'\\nPARTITION BY ' || pg_get_partkeydef(c.oid), '')
    || coalesce(E'\\nSERVER ' || (
        SELECT quote_ident(s.srvname)
            || coalesce(' OPTIONS (' || {_listed("f.ftoptions")} || ')', '')
        FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid
    ), '')
    || coalesce(E'\\nUSING ' || (
        SELECT quote_ident(m.amname) FROM pg_am m WHERE m.oid = c.relam AND m.amname <> 'heap'
    ), '')
    || {_OPTIONS}
    || CASE WHEN c.relrowsecurity THEN E'\\nENABLE ROW LEVEL SECURITY' ELSE '' END
    || CASE WHEN c.relforcerowsecurity THEN E'\\nFORCE ROW LEVEL SECURITY' ELSE '' END
    || CASE c.relreplident WHEN 'f' THEN E'\\nREPLICA IDENTITY FULL'
        WHEN 'n' THEN E'\\nREPLICA IDENTITY NOTHING'
        WHEN 'i' THEN E'\\nREPLICA IDENTITY USING INDEX' ELSE '' END
    || {_OWNER.format("c.relowner")}
{_FROM_RELATION} WHERE c.relkind IN ('r', 'p', 'f') AND {_RELATION}
""",
    "column": f"""
SELECT {_RELATION_NAME}, {_COLUMN_NAME}, format_type(a.atttypid, a.atttypmod)
    || {_COLLATED.format("a", "attcollation", "a.atttypid")}
    || CASE a.attidentity WHEN 'a' THEN ' GENERATED ALWAYS AS IDENTITY'
        WHEN 'd' THEN ' GENERATED BY DEFAULT AS IDENTITY' ELSE '' END
    || coalesce(CASE a.attgenerated WHEN '' THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
        ELSE ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ')'
            || CASE a.attgenerated WHEN 's' THEN ' STORED' ELSE ' VIRTUAL' END END, '')
    || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
    || CASE WHEN EXISTS (
        SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'n'
            AND a.attnum = ANY (k.conkey) AND NOT k.convalidated
    ) THEN ' NOT VALID' ELSE '' END
    || CASE WHEN a.attstorage <> t.typstorage THEN ' STORAGE ' || CASE a.attstorage
        WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END ELSE '' END
    || CASE a.attcompression WHEN 'p' THEN ' COMPRESSION pglz' WHEN 'l' THEN ' COMPRESSION lz4' ELSE '' END
    || coalesce(' STATISTICS ' || nullif(a.attstattarget, -1), '')
    || coalesce(' OPTIONS (' || {_listed("a.attoptions")} || ')', '')
{_FROM_RELATION}
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'p', 'f') AND {_RELATION}
""",
    "constraint": f"""
SELECT CASE WHEN c.oid IS NULL THEN {_TYPE_NAME} ELSE {_RELATION_NAME} END,
    {_name("pg_constraint", "k.oid")}, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
LEFT JOIN pg_class c ON c.oid = nullif(k.conrelid, 0) LEFT JOIN pg_type t ON t.oid = nullif(k.contypid, 0)
WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND {_own("pg_constraint", "k")}
    AND k.conrelid <> ALL (%(hidden)s::oid[]) AND NOT EXISTS (
        SELECT FROM pg_depend e WHERE e.deptype = 'e' AND (
            e.classid = 'pg_class'::regclass AND e.objid = nullif(k.conrelid, 0)
            OR e.classid = 'pg_type'::regclass AND e.objid = nullif(k.contypid, 0)))
""",
    "index": f"""
SELECT (SELECT {_name("pg_class", "i.indrelid")}), {_RELATION_NAME}, pg_get_indexdef(c.oid)
    || CASE WHEN i.indisvalid THEN '' ELSE E'\\nINVALID' END
    || CASE WHEN i.indisclustered THEN E'\\nCLUSTER' ELSE '' END
    || CASE WHEN i.indisreplident THEN E'\\nREPLICA IDENTITY' ELSE '' END
{_FROM_RELATION} JOIN pg_index i ON i.indexrelid = c.oid
WHERE {_RELATION} AND i.indrelid <> ALL (%(hidden)s::oid[]) AND NOT EXISTS (
    SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
""",
    "view": f"""
SELECT {_RELATION_NAME}, {_RELATION_NAME}, pg_get_viewdef(c.oid) || {_OPTIONS}
    || {_OWNER.format("c.relowner")}
{_FROM_RELATION} WHERE c.relkind = 'v' AND {_RELATION}
""",
    "materialized view": f"""
SELECT {_RELATION_NAME}, {_RELATION_NAME}, pg_get_viewdef(c.oid) || {_OPTIONS}
    || {_OWNER.format("c.relowner")}
{_FROM_RELATION} WHERE c.relkind = 'm' AND {_RELATION}
""",
    "function": f"""
SELECT {_ROUTINE_NAME}, {_ROUTINE_NAME}, CASE p.prokind WHEN 'a' THEN (
    SELECT 'AGGREGATE (' || pg_get_function_arguments(p.oid) || ') SFUNC = '
        || {_name("pg_proc", "g.aggtransfn")} || ' STYPE = ' || format_type(g.aggtranstype, NULL)
        || coalesce(' FINALFUNC = ' || (
            SELECT {_name("pg_proc", "f.oid")} FROM pg_proc f WHERE f.oid = g.aggfinalfn
        ), '') || coalesce(' INITCOND = ' || quote_literal(g.agginitval), '')
    FROM pg_aggregate g WHERE g.aggfnoid = p.oid
) ELSE rtrim(pg_get_functiondef(p.oid), E'\\n') END || {_OWNER.format("p.proowner")} {_ROUTINES}
""",
    "trigger": f"""
SELECT {_RELATION_NAME}, {_name("pg_trigger", "t.oid")}, pg_get_triggerdef(t.oid)
    || CASE t.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN E'\\nDISABLE' WHEN 'R' THEN E'\\nENABLE REPLICA'
        ELSE E'\\nENABLE ALWAYS' END
{_FROM_RELATION} JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal AND {_RELATION}
""",
    "rule": f"""
SELECT {_RELATION_NAME}, {_name("pg_rewrite", "r.oid")}, pg_get_ruledef(r.oid)
{_FROM_RELATION} JOIN pg_rewrite r ON r.ev_class = c.oid WHERE r.rulename <> '_RETURN' AND {_RELATION}
""",
    "policy": f"""
SELECT {_RELATION_NAME}, {_name("pg_policy", "o.oid")},
    CASE WHEN o.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END || ' FOR ' || CASE o.polcmd
        WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL'
        END || ' TO ' || (
        SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', '
            ORDER BY CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END)
        FROM unnest(o.polroles) r
    ) || coalesce(E'\\nUSING (' || pg_get_expr(o.polqual, o.polrelid) || ')', '')
    || coalesce(E'\\nWITH CHECK (' || pg_get_expr(o.polwithcheck, o.polrelid) || ')', '')
{_FROM_RELATION} JOIN pg_policy o ON o.polrelid = c.oid WHERE {_RELATION}
""",
    "statistics": f"""
SELECT (SELECT {_name("pg_class", "s.stxrelid")}), {_name("pg_statistic_ext", "s.oid")},
    pg_get_statisticsobjdef(s.oid)
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {_own("pg_statistic_ext", "s")}
""",
    "grants on schema": _granted(
        "pg_namespace", "n.nspacl", "n", "n.nspowner", _SCHEMA_NAME, _SCHEMA_NAME, _SCHEMAS
    ),
    "grants on sequence": _granted(
        "pg_class",
        "c.relacl",
        "s",
        "c.relowner",
        _RELATION_NAME,
        _RELATION_NAME,
        f"{_FROM_RELATION} WHERE c.relkind = 'S' AND {_RELATION}",
    ),
    "grants on table": _granted(
        "pg_class",
        "c.relacl",
        "r",
        "c.relowner",
        _RELATION_NAME,
        _RELATION_NAME,
        f"{_FROM_RELATION} WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND {_RELATION}",
    ),
    "grants on column": _granted(
        "pg_class",
        "a.attacl",
        "c",
        "c.relowner",
        _COLUMN_NAME,
        _RELATION_NAME,
        f"""{_FROM_RELATION} JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
WHERE {_RELATION}""",
    ),
    "grants on function": _granted(
        "pg_proc", "p.proacl", "f", "p.proowner", _ROUTINE_NAME, _ROUTINE_NAME, _ROUTINES
    ),
    "grants on type": _granted(
        "pg_type",
        "t.typacl",
        "T",
        "t.typowner",
        _TYPE_NAME,
        _TYPE_NAME,
        f"{_TYPES} AND t.typtype IN ('c', 'd', 'e', 'r')",
    ),
    "default privileges": """
SELECT quote_ident(pg_get_userbyid(d.defaclrole)),
    quote_ident(pg_get_userbyid(d.defaclrole)) || coalesce(' in schema ' || quote_ident(n.nspname), '')
        || ' on ' || CASE d.defaclobjtype
            WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
            WHEN 'T' THEN 'types' WHEN 'L' THEN 'large objects' ELSE 'schemas' END,
    coalesce((SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
            || ': ' || string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION'
                ELSE '' END, ', ' ORDER BY a.privilege_type, a.is_grantable) AS line
        FROM aclexplode(d.defaclacl) a GROUP BY a.grantee
    ) lines), 'nobody')
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = nullif(d.defaclnamespace, 0)
""",
    "comment": f"""
SELECT o.identity, o.type || ' ' || o.identity, d.description
FROM pg_description d
CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) o
LEFT JOIN pg_namespace n ON n.nspname = CASE d.classoid WHEN 'pg_namespace'::regclass
    THEN (SELECT s.nspname FROM pg_namespace s WHERE s.oid = d.objoid)
    WHEN 'pg_class'::regclass THEN (SELECT s.nspname FROM pg_class x JOIN pg_namespace s
        ON s.oid = x.relnamespace WHERE x.oid = d.objoid)
    WHEN 'pg_proc'::regclass THEN (SELECT s.nspname FROM pg_proc x JOIN pg_namespace s
        ON s.oid = x.pronamespace WHERE x.oid = d.objoid)
    WHEN 'pg_type'::regclass THEN (SELECT s.nspname FROM pg_type x JOIN pg_namespace s
        ON s.oid = x.typnamespace WHERE x.oid = d.objoid)
    WHEN 'pg_constraint'::regclass THEN (SELECT s.nspname FROM pg_constraint x JOIN pg_namespace s
        ON s.oid = x.connamespace WHERE x.oid = d.objoid)
    WHEN 'pg_trigger'::regclass THEN (SELECT s.nspname FROM pg_trigger t JOIN pg_class x ON x.oid = t.tgrelid
        JOIN pg_namespace s ON s.oid = x.relnamespace WHERE t.oid = d.objoid)
    WHEN 'pg_policy'::regclass THEN (SELECT s.nspname FROM pg_policy t JOIN pg_class x ON x.oid = t.polrelid
        JOIN pg_namespace s ON s.oid = x.relnamespace WHERE t.oid = d.objoid)
    WHEN 'pg_rewrite'::regclass THEN (SELECT s.nspname FROM pg_rewrite t JOIN pg_class x ON x.oid = t.ev_class
        JOIN pg_namespace s ON s.oid = x.relnamespace WHERE t.oid = d.objoid)
    ELSE (SELECT s.nspname FROM pg_statistic_ext x JOIN pg_namespace s ON s.oid = x.stxnamespace
        WHERE x.oid = d.objoid) END
WHERE d.classoid IN ({_COMMENTED}) AND n.oid IS NOT NULL AND NOT {_SYSTEM}
    AND NOT (d.classoid = 'pg_class'::regclass AND d.objoid = ANY (%(hidden)s::oid[]))
    AND NOT EXISTS (SELECT FROM pg_depend e
        WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')
    AND NOT (d.classoid = 'pg_namespace'::regclass AND n.nspname = 'public'
        AND d.description = 'standard public schema')
""",
}
