"""`where`: what is one condition passes untouched, and nothing else passes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extract_jobs.errors import ConfigError
from extract_jobs.spec.predicates import check_where, reads_clock, reads_other_rows, where_problem
from extract_jobs.spec.source_types import BUILT_IN

DIALECTS = sorted({kind.where for kind in BUILT_IN.values() if kind.where})
EVERYWHERE = [
    "a = 1",
    "not deleted",
    "a > 1 or a is null",
    "a in (1, 2, 3) and (b like 'x%' or c between 1 and 2)",
    "name = 'it''s; -- /* fine */ (here'",
    '"odd ""name"";--)" = 1',
    "case when a = 1 then b = 2 else c = 3 end",
    "coalesce(a, 0) > 0",
    "cast(a as int) = 1",
    "a\n  = 1\n\tand b = 2",
    "name = 'é☃😀 '",
    "upper(a) = 'X'",
]
SUBQUERIES = [
    "id in (select id from wanted where kind = 'x')",
    "exists (select 1 from other o where o.id = id)",
    "a > (select max(a) from b)",
    "a = (select count(*) over (partition by x) from b order by 1 limit 1)",
]
ACCEPTED = {
    "postgres": [
        "a::int = 3", "a ~* '^x' and b !~ 'y'", "a @> '{1}' and b ? 'k'", "j #>> '{a,b}' = 'x'",
        "a = any(array['x', 'y'])", "a[1] = 2", "a operator(pg_catalog.=) 1", "a = E'it\\'s'",
        "created >= now() - interval '7 days'", "d = date '2024-01-01'", "a is not distinct from b",
        "a similar to 'x'", "(a, b) in ((1, 2))", "a at time zone 'UTC' > '2020-01-01'",
        'a collate "C" > \'b\'', "extract(year from a) = 2024", "xmin::text::bigint > 5",
        "tableoid = 'app.t'::regclass", "a isnull", "ts @@ to_tsquery('x')", "v$x = 1",
        "note = '* as c0'", "note !~ '%s'", "path = 'C:\\temp\\x'", "(a).b = 1", "true",
        "n > 1_000", "n > 1_000.000_1e1_0", "n > .5_0", "n in (0x1F, 0xFFFF_FFFF, 0o17, 0b1_0)",
        "a_1_000 = '1_000'", "a in (values (1), (2))", "b = X'1F' and c = B'101'",
        "substring(a similar 'x' escape '#') = 'x'", "xmlexists('//a' passing by value x)",
        "a = 1 or not (xmlexists('//a(' passing by value x) and n > 1_000)",
        "@ n > 2", "a = 1 and @n > 2", "n = @ -5", "n between 1 and @ m", "f(@ a, # b) > 1",
        "@-@ a > 2", "?- a and ?| b", "a ?-| b", "a ?|| b", "a ## b = c", "a <<| b or a |>> b",
        "a |&> b", "a &<| b", "a <^ b", "a >^ b", "not a ~= b", "a <<= b", "a >>=b", "a ?# b",
        '"a" <<= \'10.0.0.0/8\'', "v <#> '[1,2]' < -0.5", "t %> 'x' and t <<-> 'y' < 1",
        f"a{' ' * 99}@> b", f"a and{' ' * 99}@ b > 1", "(a).to <<| b", "t.from @> b", "a$not <<| b",
        "b <@ box '((0,0),(1,1))'", "a = 1 and c <@ circle'<(0,0),1>' or p = path '(0,0)'",
        "m in (macaddr '08:00:2b:01:02:03', macaddr '08:00:2b:01:02:04')", "p ~= polygon '(0,0)'",
        "f(a = app.mood 'so so', \"Mood\" 'x', app.\"a\"\"b\" 'y')", "a = bit varying '101'",
        "a = cidr '10/8' and b = tsquery 'x' and substring(a similar tsquery 'x' escape '#') = 'x'",
        "a is nfkc normalized", "a is not NFC normalized", "n*-1 > 2 and n<>-1", "n = @m*-2",
    ],
    "mysql": [
        "a <=> b", "a regexp 'x'", '`a b` = "x"', "flags & 4", "a xor b", "a div 2 = 1",
        "match(a) against ('x' in boolean mode)", "j->>'$.b' = 'x'", "a = _utf8mb4'x'", "a = 0x41",
        "a > now() - interval 1 day", "a = 'C:\\\\temp'", "a like '50\\\\%'", "a = x'41'",
    ],
    "sqlite": [
        "a glob 'x*'", "a is b", "[a b] = 1", "`a` == 1", "max(a, b) > 1", "datetime('now') > a",
        "j ->> '$.b' = 1", "typeof(a) = 'text'", "a collate nocase = 'x'", "a = 'C:\\'",
    ],
    "tsql": [
        "[a]] b] = N'x'", "try_cast(a as int) = 3", "dateadd(day, -1, getdate()) < a",
        "iif(a = 1, 1, 0) = 1", "a = 'C:\\'", "id in (select top 1 id from b)",
        "a !> 5 and b !< 5",
    ],
    "oracle": [
        "a = date '2024-01-01'", "regexp_like(a, 'x')", "a > sysdate - 1", "nvl(a, 0) = 0",
        "a = n'x'", "mod(a, 2) = 0", "a > 1.5f", "a > 1e3d", "a > 5F",
    ],
    "redshift": ["a::int = 3", "a ~ 'x'", "created > getdate() - interval '1 day'"],
    "generic": ["a = 1 and b <> 'x'", "`a b` = 1"],
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_conditions_pass(dialect):
    texts = EVERYWHERE + ACCEPTED[dialect] + SUBQUERIES
    assert {text: problem for text in texts if (problem := where_problem(text, dialect))} == {}


REFUSED = [
    ("", "is empty"),
    (" \n ", "is empty"),
    ("a = 1; drop table t", r"a semicolon.*line 1, column 6"),
    ("a = 1;", "a semicolon"),
    ("a = 1) or (1 = 1", r"closes a parenthesis.*line 1, column 6"),
    ("(a = 1", r"does not close.*line 1, column 1"),
    ("a = 1 -- why", "a comment"),
    ("a = 1 /* why */", "a comment"),
    ("a = 1\n/*", r"a comment.*line 2, column 1"),
    ("a = 1 */", "a comment"),
    ("a = 'x", r"quote that is not closed.*line 1, column 5"),
    ('"a = 1', "quote that is not closed"),
    ("a = 1\0", "NUL"),
    ("a = 1\x0c", "U\\+000C"),
    ("a\xa0= 1", "U\\+00A0"),
    ("a = 'x' 'y'", "two strings in a row"),
    ("a = $1", "parameter or a dollar quote"),
    ("a = :x", "parameter or variable"),
    ("a = 1\\n", "holds a \\\\"),
    ("a = 1 as b", "not one expression.*line 1, column 8"),
    ("a = 1, b = 2", "not one expression"),
    ("a = 1 b", "not one expression"),
    ("a = 1 order by a", "not one expression"),
    ("a = 1 limit 1", "not one expression"),
    ("a = 1 union select 2", "not one expression"),
    ("a = 1 group by a", "not one expression"),
    ("a = 1 and", "not one expression"),
    ("select 1", "not one expression"),
    ("drop table t", "not one expression"),
    ("a in (delete from t)", "not one expression"),
    ("count(*) > 1", "an aggregate"),
    ("sum(a) over () > 1", "a window function"),
    ("5", "not boolean"),
    ("'text'", "not boolean"),
    ("null", "not boolean"),
    ("*", "not boolean"),
    ("(a, b)", "not boolean"),
    ("a = 1 and 'x'", "beside AND"),
    ("not ((5))", "beside AND"),
    ("rand() < 0.5", "uses rand"),
    ("a = 1 or random() < 0.5", "uses random"),
    ("not " * 3000 + "a", "too deeply"),
    ("(" * 3000 + "a" + ")" * 3000, "too deeply"),
]
REFUSED_IN = {
    "postgres": [
        ("||", "not one expression"),
        ("@> && ~=", "not one expression"),
        ("a = $$x$$", "dollar quote"),
        ("a = $tag$x$tag$", "dollar quote"),
        ("a = '\\' or b = '", r"backslash.*settings"),
        ("a = 'C:\\'", r"backslash.*settings"),
        ("a = E'x\\'", "quote that is not closed"),
        ("a = E'x'\n'\\' or 1 = 1'", "two strings in a row"),
        ("a = %s", "parameter or variable"),
        ("a = %(x)s", "parameter or variable"),
        ("exists (select 1 from t for update)", "writes or locks"),
        ("exists (select 1 into u from t)", "writes or locks"),
        ("a in (with x as (delete from t returning 1) select * from x)", "writes or locks"),
        ("generate_series(1, a) = 1", "several rows"),
        ("a + 1", "not boolean"),
        ("a = @", "not one expression"),
        ("a ~= b c", "not one expression"),
        ("box '(0,0)'", "not boolean"),
        ("b <@ box '(0,0)' c", "not one expression"),
        ("a in (box 'x' union delete 'y')", "not one expression"),
        ("b <@ box (select 1 for update)", "not one expression|writes or locks"),
        ("a <<| (delete from t)", "not one expression"),
        ("a <<| pg_sleep(5)", "uses pg_sleep"),
        ("a <<| count(*)", "an aggregate"),
        ("a <<| b; select 1", "a semicolon"),
        ("a <<| :b", "parameter or variable"),
        ("a <-- b", "a comment"),
        ("a::text", "not boolean"),
        ("upper(a)", "not boolean"),
        ("now()", "not boolean"),
        ('"random"() < 0.5', "uses random"),
        ("pg_catalog.random() < 0.5", "uses random"),
        ("a > clock_timestamp()", "there is current_timestamp"),
        ("a = nextval('s')", "uses nextval"),
        ("pg_sleep(5) is null", "uses pg_sleep"),
        ("id in (select lo_import('/etc/passwd'))", "uses lo_import"),
        ("a in (select b from dblink('x', 'y') as t(b int))", "uses dblink"),
        ("pg_read_file('x') = a", "uses pg_read_file"),
        ("n > 1__000", "not one expression"),
        ("n > 1_000_", "not one expression"),
        ("a = 1 and (b similar c d)", "not one expression"),
        ("a in (b similar 'x' escape)", "not one expression"),
        ("f(a passing by b, (select 1 for update)) = 1", "not one expression"),
        ("f(a passing by select 1 into x) = 1", "not one expression"),
        ("f(a passing by pg_sleep(5)) = 1", "uses pg_sleep"),
        ("f(a passing by b) = 1 and", "not one expression"),
        ("set_config('x', 'y', false) = a", "uses set_config"),
        ("query_to_xml('drop table t', true, true, '') is null", "uses query_to_xml"),
    ],
    "mysql": [
        ("a = 1 # why", "holds a #"),
        ("a = 1 /*!50000 or 1 = 1 */", "a comment"),
        ("a = '\\' or b = '", r"backslash.*settings"),
        ('a = "\\" or b = "', r"backslash.*settings"),
        ("a = @x", "parameter or variable"),
        ("a = @@version", "parameter or variable"),
        ("@a := 1", "not one expression"),
        ("exists(select 1 into outfile '/tmp/x')", "not one expression"),
        ("sleep(5) = 0", "uses sleep"),
        ("load_file('/etc/passwd') = a", "uses load_file"),
        ("f(a b c @x := 1)", "not one expression"),
        ("a = uuid()", "uses uuid"),
        ("a < sysdate()", "there is current_timestamp"),
    ],
    "sqlite": [
        ("a = ?", "parameter or variable"),
        ("a = ?1", "not one expression"),
        ("a = @x", "parameter or variable"),
        ("max(a) > 1", "an aggregate"),
        ("load_extension('x')", "uses load_extension"),
    ],
    "tsql": [
        ("a = 1 drop table t", "not one expression"),
        ("exec xp_cmdshell 'x'", "not one expression"),
        ("a = newid()", "uses newid"),
        ("a > $5", "a parameter"),
        ("f(a b c) = 1", "not one expression"),
        ("a = next value for s", "next value of a sequence"),
        ("a in (select b from openrowset('x', 'y', 'z'))", "uses openrowset"),
        ("{fn now()} > a", "holds a {"),
    ],
    "oracle": [
        ("a = q'[x]'", "form q'…'"),
        ("a = Q'(')'", "form q'…'"),
        ("a = nq'!x!'", "form q'…'"),
        ("rownum < 5", "uses rownum"),
        ("a = s.nextval", "uses nextval"),
        ("dbms_random.value < .5", "uses dbms_random"),
        ("sys_guid() = a", "uses sys_guid"),
    ],
    "generic": [
        ("a = q'[x]'", "form q'…'"),
        ("[a] = 1", r"holds a \["),
        ("`a(b` = 1", "quotes or parentheses between"),
        ("a = 'x\\'", r"backslash.*settings"),
        ("a # b", "holds a #"),
        ("a = {d '2024-01-01'}", "holds a {"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("text", "says"), REFUSED, ids=lambda value: value[:25])
def test_what_is_no_condition_anywhere_is_refused(dialect, text, says):
    if dialect == "postgres" and text == "a = :x":
        says = "parameter"
    with pytest.raises(ConfigError, match=f"(?s)^where: .*({says})"):
        check_where(text, dialect)


@pytest.mark.parametrize(
    ("dialect", "text", "says"),
    [(dialect, *case) for dialect, cases in REFUSED_IN.items() for case in cases],
    ids=lambda value: value[:25],
)
def test_what_is_no_condition_in_a_dialect_is_refused(dialect, text, says):
    with pytest.raises(ConfigError, match=f"(?s)^tables.t.where: .*({says})"):
        check_where(text, dialect, where="tables.t.where")


def test_no_message_repeats_the_text():
    for text, _ in [*REFUSED, *REFUSED_IN["postgres"]]:
        secret = text.replace("x", "TOPSECRET")
        assert "TOPSECRET" not in (where_problem(secret, "postgres") or "")


@pytest.mark.parametrize(
    ("text", "dialect", "moves"),
    [
        ("a > now() - interval '1 day'", "postgres", True),
        ("a > current_date", "postgres", True),
        ("a < 'now'::timestamptz", "postgres", True),
        ("select * from t where a > current_timestamp", "postgres", True),
        ("select * from t where random() < 0.5", "postgres", True),
        ("a > datetime('now', '-1 day')", "sqlite", True),
        ("a > datetime()", "sqlite", True),
        ("a > sysdate - 1", "oracle", True),
        ("a > dateadd(day, -1, getdate())", "tsql", True),
        ("datetime(a) > '2024-01-01'", "sqlite", False),
        ("now > 5 and note = 'then'", "postgres", False),
        ("date(a) = '2024-01-01'", "mysql", False),
        ("select 'not closed", "postgres", True),
    ],
)
def test_what_depends_on_the_clock_is_known(text, dialect, moves):
    assert reads_clock(text, dialect) is moves


def test_sqlglot_is_not_imported_before_there_is_a_condition():
    code = (
        "import sys, extract_jobs.spec.predicates, extract_jobs.config;"
        "sys.exit('sqlglot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PIECES = st.sampled_from([
    "'", "''", '"', "`", "[", "]", "(", ")", ";", "--", "/*", "*/", "#", "\\", "\\'", "$$", "$a$",
    "a", " ", "\n", "=", "1", "or", " or ", " and ", "not ", "'x'", "a = 1", ") or (1 = 1",
    "; drop table t", "select", " union select 1 ", "E'", "q'[", "N'", "x'", "@", ":a", "?", "{",
    "}", ",", "||", " in ", "(select 1)", "exists", " is null", "random()", "count(*)", "case ",
    "/*!50000 ", "\r", "\xa0", "%s", "U&'", "!",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=9).map("".join) | st.lists(PIECES, max_size=4).map(
    lambda inside: f"b = '{''.join(inside)}' or a = 1"
)


@settings(deadline=None)
@given(TEXTS)
@example("a = 1) or (1 = 1")
@example("a = '\\' or b = '")
@example("[a) or (1] = 1")
def test_sqlite_never_reads_what_passes_as_more_than_a_condition(text):
    for dialect in ("sqlite", "generic"):
        if where_problem(text, dialect) is not None:
            continue
        database = sqlite3.connect(":memory:")
        database.execute("create table t (a, b)")
        database.execute("insert into t values (1, 'x'), (2, null)")
        statement = f"select * from t where (\n{text}\n) and 1 = 0"
        try:
            assert database.execute(statement).fetchall() == []
            database.executescript(statement)
        except sqlite3.Error:
            pass  # nothing that SQLite runs
        assert database.execute("select count(*) from t").fetchone() == (2,)
        database.close()


@pytest.mark.parametrize(("text", "others"), [
    ("id > 3 and name like 'x%'", False),
    ("coalesce(a, 0) > 0 or date(at) = '2024-01-01' or a regexp 'x'", False),
    *((text, True) for text in SUBQUERIES),
    ("case when exists (select 1 from t) then a else b end", True),
    ("own_function(id) = 1", True),
    ("trim(own passing by id) = 1", True),
    ("shop.own_function(id) = 1", True),
])  # fmt: skip
def test_a_condition_that_may_read_other_rows_is_recognised(text: str, others: bool) -> None:
    assert reads_other_rows(text, "mysql") is others
