-- Texts that the gate passes, one a paragraph. They name relations x, y and so on, and need not bind.

values (1), (2)

from x select a

select * exclude (a, x.b) replace (c as d) rename (e as f) from x order by all desc nulls last limit 1 offset
    2

select distinct on (a) b from x limit 10%

select columns('a.*'), coalesce(*columns(['a', 'b'])) from x

select * from x tablesample 10%

select * from x asof join y using (a) semi join z using (a) positional join w

select * from x cross join lateral unnest(a) t(b)

select * from unnest([1]) with ordinality, generate_series(1, 2), range(3)

select row_number() over w, lag(a, 1, 2) over (partition by b order by c rows between 1 preceding and current
    row) from x window w as (order by a)

select count(*) filter (where a), sum(distinct a order by b), grouping(a) from x group by rollup (a, b) having
    true qualify true

select exists (from x), (select 1), a in (select 1), a > any (select 1), a not in (1), a between 1 and 2 from
    x

select case when a then b end, nullif(a, b), ifnull(a, b), if(a, b, c), a is distinct from b, try(1 / 0) from
    x

select a like 'x' escape 'y', a ilike 'b', a similar to 'c', a ~ 'd', a collate nocase, a || b, -a from x

select extract(year from a), trim(both from b), substring(b from 1 for 2), a at time zone 'UTC', b[1:2] from x

select {'a': 1}.a, [1, 2][1], map {1: 2}, row(1, 2), list_transform([1], lambda v: v + 1), [v for v in [1] if
    v]

select cast(a as decimal(38, 0)), b::int[], try_cast(c as struct(d int, e varchar[])), interval 3 days from x

select * from x pivot (sum(b) for a in (1, 2))

unpivot x on a into name n value v

select 1 union all by name select 2 except (select 3 intersect select 4)

select current_date, current_timestamp, now(), user, pg_typeof(1)

select 1;

select 1 -- with a remark; and another

/* first */ select /* inside */ 'with ; and -- and $1' as a
