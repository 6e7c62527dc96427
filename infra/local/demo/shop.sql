-- The shop that the demo extracts: 430,000 rows, made the same way every time.
create schema shop;

create table shop.customers (
    customer_id   bigint primary key,
    email         text not null,
    full_name     text,
    born          date,
    country       char(2),
    preferences   jsonb,
    tags          text[],
    loyalty_since timestamptz,
    external_id   uuid not null
);
insert into shop.customers
select i,
       'customer' || i || '@example.org',
       case when i % 17 <> 0 then 'Zoë Nº ' || i end,
       date '1940-01-01' + (i * 37 % 24000)::int,
       (array['DE', 'FR', 'US', 'JP', 'BR', null])[i % 6 + 1],
       case when i % 5 <> 0 then jsonb_build_object('newsletter', i % 2 = 0, 'sizes', array[i % 9, 3]) end,
       case when i % 4 <> 0 then array['tag' || i % 7, null, 'b,c'] end,
       case when i % 3 = 0 then timestamptz '2019-03-31 00:59:59.123456+00' + i * interval '7 minutes' end,
       md5('customer' || i)::uuid
from generate_series(1, 30000) i;

create table shop.products (
    sku        text primary key,
    title      text not null,
    price      numeric(12, 2) not null,
    weight_kg  double precision,
    attributes json,
    photo      bytea
);
insert into shop.products
select 'SKU-' || lpad(i::text, 5, '0'),
       'Product "' || i || '"',
       (i::bigint * 7919 % 500000) / 100.0,
       case when i % 11 <> 0 then i / 7.0 end,
       json_build_object('colour', (array['red', 'green', 'blue'])[i % 3 + 1]),
       decode(md5(i::text), 'hex')
from generate_series(1, 3000) i;

create table shop.orders (
    order_id    bigint primary key,
    customer_id bigint not null,
    status      text not null,
    total       numeric(14, 2) not null,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,
    note        text
);
insert into shop.orders
select i,
       i * 31 % 30000 + 1,
       (array['open', 'paid', 'shipped', 'returned'])[i % 4 + 1],
       (i::bigint * 104729 % 9000000) / 100.0,
       timestamptz '2026-01-01 00:00:00+00' + i * interval '21 seconds',
       timestamptz '2026-01-01 00:00:00+00' + i * interval '21 seconds' + i % 5 * interval '1 hour',
       case when i % 9 = 0 then 'ring twice' || chr(10) || '— thank you' end
from generate_series(1, 80000) i;
create index on shop.orders (updated_at);

create table shop.order_items (
    order_id   bigint not null,
    line       int not null,
    sku        text not null,
    quantity   int not null,
    unit_price numeric(12, 2) not null,
    discount   numeric(5, 4),
    primary key (order_id, line)
);
insert into shop.order_items
select o, line, 'SKU-' || lpad(((o * 13 + line) % 3000 + 1)::text, 5, '0'),
       (o + line) % 6 + 1, (o::bigint * line * 7919 % 500000) / 100.0,
       case when o % 8 = 0 then 0.1250 end
from generate_series(1, 80000) o, generate_series(1, 2) line;

create table shop.payments (
    payment_id bigint primary key,
    order_id   bigint not null,
    method     text not null,
    amount     numeric(14, 2) not null,
    paid_at    timestamp without time zone,
    reference  inet
);
insert into shop.payments
select i, i, (array['card', 'invoice', 'voucher'])[i % 3 + 1], (i::bigint * 104729 % 9000000) / 100.0,
       case when i % 10 <> 0 then timestamp '2026-01-01' + i * interval '23 seconds' end,
       ('10.0.' || i % 250 || '.' || i % 200)::inet
from generate_series(1, 57000) i;

create table shop.events (
    event_id    bigint not null,
    happened_at timestamptz not null,
    kind        text not null,
    payload     jsonb
) partition by range (happened_at);
create table shop.events_2026_01 partition of shop.events
    for values from ('2026-01-01 00:00:00+00') to ('2026-02-01 00:00:00+00');
create table shop.events_2026_02 partition of shop.events
    for values from ('2026-02-01 00:00:00+00') to ('2026-03-01 00:00:00+00');
create table shop.events_2026_03 partition of shop.events
    for values from ('2026-03-01 00:00:00+00') to ('2026-04-01 00:00:00+00');
insert into shop.events
select i, timestamptz '2026-01-01 00:00:00+00' + i * interval '77 seconds',
       (array['view', 'cart', 'buy'])[i % 3 + 1],
       case when i % 7 <> 0 then jsonb_build_object('page', i % 40, 'ms', i % 900) end
from generate_series(1, 100000) i;

-- PostgreSQL's money depends on the server's locale: it is refused unless its cast is asked for.
create table shop.gift_cards (card_id bigint primary key, balance money);
insert into shop.gift_cards select i, i::money from generate_series(1, 500) i;

analyze;
