"""Which statements leave a session unchanged, judged only by their text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql
from psycopg.abc import Query

from lakebase_provider.core.base.sql.sql_text import is_query, tokens

#: Characters. A longer text is not analysed: it contains data and costs more than a round trip anyway.
_LONGEST = 20_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: A number without the letters that Postgres would refuse right after it.
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][0-9]*)?", re.ASCII)
#: After a parenthesis: it holds a query, and so no function is called.
_QUERY = re.compile(r"[ \t\r\n\f\v]*(?:select|with)(?![^\x00-\#%-/:-@\[-^`{-\x7f])", re.IGNORECASE | re.ASCII)
#: A parameter name that is not a plain word could hold a quote, which psycopg removes with it.
_ODD_PARAMETER = re.compile(r"%\((?![A-Za-z0-9_]+\))")

_READS = frozenset({"select", "values", "table", "show", "with"})
#: Words between EXPLAIN and what it explains.
_EXPLAIN_OPTIONS = _words(
    """
    analyze buffers costs format generic_plan memory serialize settings summary timing verbose wal
    binary false json none off on text true xml yaml
    """
)
#: Words that write, lock, or make a table from a query.
_WRITES = frozenset({"insert", "update", "delete", "merge", "into"})
_LOCKS = frozenset({"update", "share", "key", "no"})

#: Words before a parenthesis that Postgres' grammar does not allow as a function name unless qualified.
_SYNTAX = _words(
    """
    all and any array as asymmetric case cast current_time current_timestamp distinct else except from group
    having in intersect lateral limit localtime localtimestamp not offset on only or select some symmetric
    then union using when where with
    between exists row values
    bit char character dec decimal float interval nchar numeric time timestamp varchar
    """
)
#: Words that are syntax only after certain others.
_SYNTAX_AFTER = {
    "by": frozenset({"group", "order", "partition"}),
    "sets": frozenset({"grouping"}),
    "varying": frozenset({"bit", "char", "character", "nchar"}),
    "over": frozenset({")"}),
    "filter": frozenset({")"}),
}
#: After these a name is an alias or a query's name, and the parenthesis lists its columns.
_NAMING = frozenset({"as", "with", "recursive"})

#: Functions of pg_catalog without side effects.
_FUNCTIONS = _words(
    """
    array_agg avg bit_and bit_or bool_and bool_or corr count covar_pop covar_samp every json_agg
    json_object_agg jsonb_agg jsonb_object_agg max min mode percentile_cont percentile_disc regr_intercept
    regr_r2 regr_slope stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance
    cume_dist dense_rank first_value grouping lag last_value lead nth_value ntile percent_rank rank row_number
    coalesce greatest least nullif num_nonnulls num_nulls
    abs cbrt ceil ceiling degrees div exp floor gcd gen_random_uuid lcm ln log log10 mod pi power radians
    random round scale sign sqrt trim_scale trunc width_bucket
    acos asin atan atan2 cos cot sin tan
    ascii bit_length btrim char_length character_length chr concat concat_ws convert_from convert_to decode
    encode format initcap left length lower lpad ltrim md5 octet_length overlay position quote_ident
    quote_literal quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches
    regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse right rpad
    rtrim sha224 sha256 sha384 sha512 split_part starts_with string_to_array string_to_table strpos substr
    substring to_ascii to_hex translate trim unistr upper
    age clock_timestamp date date_bin date_part date_trunc extract isfinite justify_days justify_hours
    justify_interval make_date make_interval make_time make_timestamp make_timestamptz now
    statement_timestamp timeofday to_char to_date to_number to_timestamp transaction_timestamp
    array_append array_cat array_dims array_length array_lower array_ndims array_position array_positions
    array_prepend array_remove array_replace array_to_string array_upper cardinality generate_series
    generate_subscripts unnest
    isempty lower_inc lower_inf upper_inc upper_inf
    array_to_json json_array_elements json_array_elements_text json_array_length json_build_array
    json_build_object json_each json_each_text json_extract_path json_extract_path_text json_object_keys
    json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object_keys
    jsonb_path_exists jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_set
    jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb
    col_description current_database current_query current_schema current_schemas current_setting format_type
    has_any_column_privilege has_column_privilege has_database_privilege has_function_privilege
    has_schema_privilege has_sequence_privilege has_table_privilege inet_client_addr inet_client_port
    inet_server_addr inet_server_port obj_description pg_backend_pid pg_blocking_pids pg_column_size
    pg_conf_load_time pg_database_size pg_encoding_to_char pg_get_constraintdef pg_get_expr
    pg_get_functiondef pg_get_indexdef pg_get_serial_sequence pg_get_userbyid pg_get_viewdef pg_has_role
    pg_indexes_size pg_is_in_recovery pg_listening_channels pg_my_temp_schema pg_postmaster_start_time
    pg_relation_size pg_size_pretty pg_sleep pg_table_is_visible pg_table_size pg_tablespace_size
    pg_total_relation_size pg_typeof shobj_description to_regclass to_regnamespace to_regproc
    to_regprocedure to_regrole to_regtype version
    """
)


def leaves_no_trace(sql: str) -> bool:
    """Whether a statement only reads, and leaves its session unchanged.

    It does if the text is one SELECT, VALUES, TABLE, SHOW or WITH … SELECT, or an EXPLAIN of one, that
    neither writes nor locks rows, and that calls only Postgres functions known to be harmless. In doubt, the
    answer is no: that costs a round trip, never correctness.

    Only the text is examined. It does not show a function that the database calls for a view, an operator, a
    cast, a row security policy, a foreign table or a column in attribute notation (``t.f`` for ``f(t)``), nor
    a user's function with the name of a Postgres one. If such a function changes the session, with
    ``set_config`` or an advisory lock, this answer is wrong.

    Args:
        sql: The text in psycopg's form: with placeholders, unless it has no parameters.
    """
    return len(sql) <= _LONGEST and _leaves_no_trace(sql)


@lru_cache(maxsize=256)
def _leaves_no_trace(sql: str) -> bool:
    if "%" in sql and ("$" in sql or _ODD_PARAMETER.search(sql)):
        # psycopg writes $1 for a placeholder; what follows it could become, or stop being, a dollar quote.
        return False
    started = explains = selects_distinct_on = has_clause_after_call = False
    seen = ["", "", ""]
    for kind, start, end in tokens(sql):
        part = sql[start:end]
        if kind in ("space", "comment"):
            continue
        if kind == "open" or not _is_plain(kind, part):
            return False
        if kind == "word":
            # Postgres folds only ASCII: a Kelvin sign is not a k.
            part = part.lower() if part.isascii() else '"'
        elif kind == "name":
            part = '"'
        elif kind != "symbol":
            part = "'"
        before = seen[-1]
        if before == ";" and part != ";":
            return False
        if started and part == "(" and not _QUERY.match(sql, end) and not _opens_no_call(seen):
            return False
        if kind == "word":
            if part in _WRITES or (before == "for" and part in _LOCKS):
                return False
            if before == "distinct" and part == "on":
                selects_distinct_on = True
            elif part in ("over", "filter"):
                has_clause_after_call = True
            if not started:
                if part == "explain" and not explains:
                    explains = True
                elif part in _READS:
                    started = True
                elif not explains or part not in _EXPLAIN_OPTIONS:
                    return False
        elif not started and part != "(" and not (explains and part in ",)"):
            return False
        seen = [*seen[1:], part]
    # After DISTINCT ON (…) these two may be functions.
    return started and not (selects_distinct_on and has_clause_after_call)


def _is_plain(kind: str, part: str) -> bool:
    """Whether it is what it looks like, for any server and its settings."""
    if kind in ("string", "name"):
        # A name in code points could be any name, and a setting may give a backslash a meaning everywhere.
        backslashes = "\\" in part and part[0] not in ("e", "E", "$")
        return part[0] not in ("u", "U") and part != '""' and not backslashes
    if kind == "symbol":
        return part in ",.:;()[]"
    return kind != "number" or _NUMBER.fullmatch(part) is not None


def _opens_no_call(tokens: list[str]) -> bool:
    """Whether a parenthesis after these tokens calls no function, or a harmless one."""
    schema, before_name, name = tokens
    if before_name == ".":
        return schema == "pg_catalog" and name in _FUNCTIONS
    if not (name == '"' or name[:1].isalpha() or name[:1] == "_"):
        return True
    if name in _SYNTAX or name in _FUNCTIONS or before_name in _NAMING:
        return True
    return before_name in _SYNTAX_AFTER.get(name, ())


def only_reads(query: Query, connection: psycopg.BaseConnection[Any]) -> bool:
    """Whether a query certainly leaves no trace.

    Args:
        query: In psycopg's form; nothing is certain about bytes.
        connection: Determines quoting.
    """
    text = query.as_string(connection) if isinstance(query, sql.Composable) else query
    # An empty statement is not a read, but SQLAlchemy's check whether a connection is alive.
    return isinstance(text, str) and (text == ";" or leaves_no_trace(text))


def is_read(query: Query, connection: psycopg.BaseConnection[Any]) -> bool:
    """Whether a statement is a query that changes nothing, but for what a function in it may do.

    Args:
        query: In psycopg's form.
        connection: Determines quoting.
    """
    text = query.as_string(connection) if isinstance(query, sql.Composable) else query
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return isinstance(text, str) and is_query(text)


def is_stale(error: psycopg.errors.FeatureNotSupported) -> bool:
    """Whether the server refuses a prepared statement because its result columns have changed."""
    # By the place in the server's source: the message may be in any language.
    return error.diag.source_function == "RevalidateCachedQuery"
