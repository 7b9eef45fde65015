"""What the checks ask: each query returns what it is about, a number, and more in words.

They read the catalog and the counters alone, and lock no table and no index of a user: hence pages of
``pg_class`` and no ``pg_relation_size``, no ``pg_get_indexdef``, no view ``pg_sequences``, whose functions
open what they are asked about, and would wait for whoever has locked it.
"""

from __future__ import annotations

#: Bytes of a page, which Lakebase does not build otherwise.
_PAGE = 8192

_NAME = "pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(c.relname))"
_TABLES = """
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'information_schema'
        AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_')
"""  # of constants
_INDEXES = """
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> 'information_schema'
        AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_')
"""
# Of what it runs only the first word: the rest may hold data.
_SESSION = """pg_catalog.concat('pid ', a.pid, ' (', coalesce(nullif(a.application_name, ''), 'unnamed'),
    ', role ', a.usename, ')')"""
_COMMAND = "upper(coalesce(substring(a.query FROM '^\\s*([A-Za-z]+)'), '?'))"

SURROUNDINGS = """
    SELECT pg_catalog.current_database(), pg_catalog.current_setting('server_version'),
        pg_catalog.pg_is_in_recovery(),
        pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
        extract(epoch FROM pg_catalog.now() - greatest(pg_catalog.pg_postmaster_start_time(),
            (SELECT stats_reset FROM pg_catalog.pg_stat_database
                WHERE datname = pg_catalog.current_database()),
            -- What a crash leaves of the statistics of one database is no reset of it, but of this.
            (SELECT stats_reset FROM pg_catalog.pg_stat_archiver)))::float8,
        (SELECT pg_catalog.concat(pg_catalog.quote_ident(n.nspname), '.', pg_catalog.quote_ident(p.proname))
            FROM pg_catalog.pg_extension e
            JOIN pg_catalog.pg_depend d ON d.refobjid = e.oid AND d.deptype = 'e'
                AND d.refclassid = 'pg_catalog.pg_extension'::regclass
                AND d.classid = 'pg_catalog.pg_proc'::regclass
            JOIN pg_catalog.pg_proc p ON p.oid = d.objid AND p.proname = 'pgstattuple_approx'
                AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
            WHERE e.extname = 'pgstattuple' LIMIT 1),
        pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
"""

# pg_stat_activity hides other roles' sessions from a role; this counts them without a privilege.
CONNECTIONS = """
    SELECT 'all databases', sum(numbackends) / current_setting('max_connections')::float8,
        concat(sum(numbackends), ' of ', current_setting('max_connections'))
    FROM pg_catalog.pg_stat_database WHERE datid <> 0
"""

BLOCKED_STATEMENTS = f"""
    SELECT {_SESSION}, extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, a.query_start)),
        concat({_COMMAND}, ' waits for ', l.mode, ' on ', coalesce((
                SELECT {_NAME} FROM pg_catalog.pg_class c
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = l.relation AND l.database = (SELECT oid FROM pg_catalog.pg_database
                    WHERE datname = pg_catalog.current_database())), l.locktype),
            ', held by pid ', array_to_string(pg_catalog.pg_blocking_pids(a.pid), ', '))
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE NOT l.granted
"""  # noqa: S608

LONG_STATEMENTS = f"""
    SELECT {_SESSION}, extract(epoch FROM clock_timestamp() - a.query_start), {_COMMAND}
    FROM pg_catalog.pg_stat_activity a
    WHERE a.state = 'active' AND a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid()
"""  # noqa: S608

IDLE_IN_TRANSACTION = f"""
    SELECT {_SESSION}, extract(epoch FROM clock_timestamp() - a.state_change),
        concat('its transaction is ', extract(epoch FROM clock_timestamp() - a.xact_start)::bigint,
            ' s old', CASE WHEN a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL
                THEN ', and keeps dead rows from being removed' END)
    FROM pg_catalog.pg_stat_activity a WHERE starts_with(a.state, 'idle in transaction')
"""  # noqa: S608

XID_AGE = """
    SELECT datname::text, greatest(age(datfrozenxid), mxid_age(datminmxid)),
        concat('transactions ', age(datfrozenxid), ', multixacts ', mxid_age(datminmxid))
    FROM pg_catalog.pg_database WHERE datallowconn
"""

DEAD_ROWS = f"""
    SELECT {_NAME}, s.dead / (s.dead + s.live), concat(s.dead, ' of ', s.dead + s.live, ' rows; vacuumed ',
        coalesce(greatest(pg_catalog.pg_stat_get_last_vacuum_time(c.oid),
            pg_catalog.pg_stat_get_last_autovacuum_time(c.oid))::timestamptz(0)::text, 'never that is known'))
    {_TABLES}
    CROSS JOIN LATERAL (SELECT pg_catalog.pg_stat_get_dead_tuples(c.oid)::float8 AS dead,
        pg_catalog.pg_stat_get_live_tuples(c.oid)::float8 AS live) AS s
    WHERE c.relkind IN ('r', 'm') AND s.dead >= 10000
"""

# A row has a header of 23 bytes and a bit for each column if one is null, starts at a multiple of 8, and is
# pointed to by 4 bytes; a page has a header of 24. Gaps between columns are not known, so that up to a tenth
# is counted too much. A column without statistics, or that the role may not read, leaves its table out.
BLOAT = f"""
    SELECT {_NAME}, 1 - ceil(c.reltuples * w.bytes / (({_PAGE} - 24) * w.filled / 100.0)) / c.relpages,
        concat(pg_catalog.pg_size_pretty(c.relpages::bigint * {_PAGE}), '; an estimate'), c.oid::bigint
    {_TABLES}
    CROSS JOIN LATERAL (
        SELECT 4 + ceil((23 + CASE WHEN bool_or(s.null_frac > 0) THEN count(*) / 8 + 1 ELSE 0 END
                + sum((1 - s.null_frac) * s.avg_width)) / 8) * 8 AS bytes,
            count(*) AS columns,
            coalesce((SELECT option_value::int FROM pg_catalog.pg_options_to_table(c.reloptions)
                WHERE option_name = 'fillfactor'), 100) AS filled
        FROM pg_catalog.pg_stats s
        WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited
    ) AS w
    WHERE c.relkind IN ('r', 'm') AND c.relpages >= 1280 AND c.reltuples >= 0
        AND w.columns = (SELECT count(*) FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
"""  # noqa: S608

BLOAT_MEASURED = """
    SELECT (approx_free_percent + dead_tuple_percent) / 100, pg_catalog.pg_size_pretty(table_len)
    FROM {function}({oid}::oid::regclass)
"""

# One that is being built is not valid yet; of other roles' work the second view says nothing.
INVALID_INDEXES = f"""
    SELECT {_NAME}, c.relpages::bigint * {_PAGE}, concat('on ', t.relname, CASE WHEN c.relkind = 'I'
        THEN '; a partition has no index that is attached to it' END)
    {_INDEXES}
    WHERE NOT i.indisvalid
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p
            WHERE p.relid = i.indrelid AND coalesce(p.index_relid, 0) IN (0, i.indexrelid))
"""  # noqa: S608


def _keys(index: str, column: str) -> str:
    # Without the places of the words, by which equal expressions would differ.
    return f"coalesce(regexp_replace({index}.{column}::text, ' :location -?\\d+', '', 'g'), '')"


# One of two equal ones, or one whose columns are the first ones of another. Of equal ones that is kept which
# is a constraint's or unique, or else the older one.
DUPLICATE_INDEXES = f"""
    SELECT {_NAME}, c.relpages::bigint * {_PAGE},
        concat('on ', t.relname, '; ', kept.relname, ' does its work')
    {_INDEXES}
    JOIN LATERAL (
        SELECT o.relname FROM pg_catalog.pg_index k JOIN pg_catalog.pg_class o ON o.oid = k.indexrelid
        WHERE k.indrelid = i.indrelid AND k.indexrelid <> i.indexrelid AND k.indisvalid AND o.relam = c.relam
            AND {_keys("k", "indpred")} = {_keys("i", "indpred")}
            AND (
                (k.indkey = i.indkey AND k.indclass = i.indclass AND k.indcollation = i.indcollation
                    AND k.indoption = i.indoption AND k.indnkeyatts = i.indnkeyatts
                    AND {_keys("k", "indexprs")} = {_keys("i", "indexprs")}
                    AND (k.indisunique > i.indisunique
                        OR (k.indisunique = i.indisunique AND k.indnullsnotdistinct = i.indnullsnotdistinct
                            AND (k.indexrelid < i.indexrelid OR EXISTS (SELECT FROM pg_catalog.pg_constraint x
                                WHERE x.conindid = k.indexrelid)))))
                OR (NOT i.indisunique AND i.indexprs IS NULL AND i.indnatts = i.indnkeyatts
                    AND i.indnkeyatts < k.indnkeyatts
                    AND c.relam = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'btree')
                    AND starts_with(k.indkey::text, i.indkey::text || ' ')
                    AND starts_with(k.indclass::text, i.indclass::text || ' ')
                    AND starts_with(k.indcollation::text, i.indcollation::text || ' ')
                    AND starts_with(k.indoption::text, i.indoption::text || ' '))
            )
        ORDER BY k.indexrelid LIMIT 1
    ) AS kept ON true
    WHERE i.indisvalid AND NOT i.indisprimary AND NOT i.indisreplident AND NOT c.relispartition
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint x WHERE x.conindid = i.indexrelid
            AND x.contype IN ('p', 'u', 'x', 'f'))
"""  # noqa: S608

UNUSED_INDEXES = f"""
    SELECT {_NAME}, c.relpages::bigint * {_PAGE}, concat('on ', t.relname)
    {_INDEXES}
    WHERE pg_catalog.pg_stat_get_numscans(i.indexrelid) = 0 AND i.indisvalid AND NOT i.indisunique
        AND NOT i.indisreplident AND c.relkind = 'i' AND c.relpages >= 128
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint x WHERE x.conindid = i.indexrelid)
"""  # noqa: S608

MISSING_INDEXES = f"""
    SELECT {_NAME}, s.whole / (s.whole + s.by_index),
        concat(s.whole, ' times read whole, ', s.by_index, ' times by an index; ',
            c.reltuples::bigint, ' rows')
    {_TABLES}
    CROSS JOIN LATERAL (
        SELECT pg_catalog.pg_stat_get_numscans(c.oid)::float8 AS whole,
            coalesce((SELECT sum(pg_catalog.pg_stat_get_numscans(i.indexrelid))
                FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), 0)::float8 AS by_index
    ) AS s
    WHERE c.relkind IN ('r', 'm') AND c.reltuples >= 10000 AND s.whole >= 50
        AND pg_catalog.pg_stat_get_tuples_returned(c.oid) / s.whole >= 10000
"""  # noqa: S608

UNINDEXED_FOREIGN_KEYS = f"""
    SELECT {_NAME}, greatest(c.reltuples, 0), concat(pg_catalog.quote_ident(k.conname), ' to ', t.relname)
    {_TABLES}
    JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0
    JOIN pg_catalog.pg_class t ON t.oid = k.confrelid
    WHERE (c.reltuples >= 10000 OR c.relkind = 'p')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
            WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
                AND (i.indkey::int2[])[0:array_length(k.conkey, 1) - 1] @> k.conkey)
"""  # noqa: S608

# Not from the view pg_sequences, which locks each one until the transaction ends. Those that count to the end
# of bigint are left out, unless a smaller column takes their numbers: no work reaches it.
SEQUENCES = f"""
    SELECT {_NAME}, s.seqincrement > 0,
        CASE WHEN s.seqincrement > 0 THEN s.seqmin ELSE s.seqmax END,
        CASE WHEN s.seqincrement < 0 THEN s.seqmin
            ELSE least(s.seqmax, CASE o.type WHEN 'int2'::regtype THEN 32767
                WHEN 'int4'::regtype THEN 2147483647 ELSE s.seqmax END) END AS last,
        o.told, pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
            AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    {_TABLES}
    JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid
    LEFT JOIN LATERAL (
        SELECT a.atttypid AS type, concat('of ', t.relname, '.', a.attname) AS told
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
        JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
            AND d.refclassid = 'pg_catalog.pg_class'::regclass
        LIMIT 1
    ) AS o ON true
    WHERE NOT s.seqcycle AND (s.seqmax < 9223372036854775807 OR s.seqincrement < 0
        OR o.type IN ('int2'::regtype, 'int4'::regtype))
"""  # noqa: S608

# A bound is no expression over columns, so that nothing has to be opened to read it: the 0.
PARTITIONS = f"""
    SELECT {_NAME}, coalesce(extract(epoch FROM bounds.last::timestamptz - now()) / 86400, 0),
        concat(coalesce(concat('until ', bounds.last), 'it has no partition with an end'), CASE
            WHEN p.partdefid <> 0 THEN '; what is later goes to the default partition' END)
    {_TABLES}
    JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = c.oid AND p.partstrat = 'r' AND p.partnatts = 1
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
        AND a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
    CROSS JOIN LATERAL (
        SELECT max(b.upper::timestamptz)::text AS last, bool_or(b.endless) AS endless
        FROM (
            SELECT substring(e.told FROM 'TO \\(''([^'']+)''\\)$') AS upper,
                e.told ~ 'TO \\((MAXVALUE|''infinity'')\\)$' AS endless
            FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class l ON l.oid = h.inhrelid
            CROSS JOIN LATERAL pg_catalog.pg_get_expr(l.relpartbound, 0) AS e (told)
            WHERE h.inhparent = c.oid AND NOT h.inhdetachpending
        ) AS b WHERE b.upper IS DISTINCT FROM 'infinity'
    ) AS bounds
    WHERE NOT c.relispartition AND bounds.endless IS NOT TRUE
"""  # noqa: S608

STALE_STATISTICS = f"""
    SELECT {_NAME}, CASE WHEN c.reltuples > 0 THEN s.changed / c.reltuples ELSE 1 END,
        concat(s.changed, ' rows changed since ', CASE WHEN c.reltuples < 0 THEN 'ever: it was never analyzed'
            ELSE coalesce(s.analyzed::timestamptz(0)::text, 'an unknown time') END)
    {_TABLES}
    CROSS JOIN LATERAL (
        SELECT pg_catalog.pg_stat_get_mod_since_analyze(c.oid)::float8 AS changed,
            greatest(pg_catalog.pg_stat_get_last_analyze_time(c.oid),
                pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed
    ) AS s
    WHERE c.relkind IN ('r', 'm') AND s.changed >= 10000
"""

# The position is asked for where there is one: a replica has none of its own.
REPLICATION_LAG = """
    SELECT told, pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery()
        THEN pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, reached), about
    FROM (
        SELECT concat('slot ', slot_name) AS told, coalesce(confirmed_flush_lsn, restart_lsn) AS reached,
            concat(slot_type, CASE WHEN active THEN ', in use' ELSE ', used by nobody' END,
                '; the log is kept for it') AS about
        FROM pg_catalog.pg_replication_slots
        UNION ALL
        SELECT concat('replica ', coalesce(nullif(application_name, ''), pid::text)), replay_lsn, state
        FROM pg_catalog.pg_stat_replication
        UNION ALL
        SELECT 'this replica', pg_catalog.pg_last_wal_replay_lsn(), 'received and not replayed'
        WHERE pg_catalog.pg_is_in_recovery()
    ) AS readers WHERE reached IS NOT NULL
"""

CACHE_HIT_RATE = """
    SELECT datname::text, blks_hit / (blks_hit + blks_read)::float8,
        concat(blks_read, ' of ', blks_hit + blks_read, ' pages were not in memory')
    FROM pg_catalog.pg_stat_database
    WHERE datname = current_database() AND blks_hit + blks_read >= 10000
"""

DATABASE_SIZE = f"""
    SELECT concat('database ', quote_ident(current_database())),
        pg_catalog.pg_database_size(current_database()), NULL
    UNION ALL (
        SELECT {_NAME}, {_PAGE} * (c.relpages + coalesce(x.relpages, 0) + coalesce((SELECT sum(o.relpages)
                FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class o ON o.oid = i.indexrelid
                WHERE i.indrelid IN (c.oid, x.oid)), 0))::bigint,
            'with its indexes, as of the last VACUUM or ANALYZE'
        {_TABLES}
        LEFT JOIN pg_catalog.pg_class x ON x.oid = c.reltoastrelid
        WHERE c.relkind IN ('r', 'm') ORDER BY 2 DESC LIMIT 10
    )
"""  # noqa: S608

# Those of the service, and Postgres' own, are not for logins.
ROLES_WITHOUT_LOGIN = """
    SELECT rolname::text, 1, CASE WHEN rolcanlogin THEN concat('its password expired at ', rolvaliduntil)
        ELSE 'it may not log in, and has no members' END
    FROM pg_catalog.pg_roles r
    WHERE rolname !~ '^(pg_|databricks_|neon|cloud_admin$)' AND (rolvaliduntil < now() OR (NOT rolcanlogin
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid)))
"""

TABLES_WITHOUT_PRIMARY_KEY = f"""
    SELECT {_NAME}, greatest(c.reltuples, 0), NULL
    {_TABLES}
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
"""  # noqa: S608

EXTENSION_VERSIONS = """
    SELECT e.extname::text, 1, concat(e.extversion, ', and ', a.default_version, ' is there')
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_available_extensions a ON a.name = e.extname
    WHERE e.extversion <> a.default_version
"""
