-- The order service's tables, with enough rows to be worth querying.

create table stock (
    sku      text primary key,
    quantity integer not null
);

create table orders (
    id       bigint generated always as identity primary key,
    customer text        not null,
    placed   timestamptz not null default now()
);

create table order_items (
    order_id bigint  not null references orders,
    sku      text    not null references stock,
    quantity integer not null
);

create table invoices (
    id       bigint generated always as identity primary key,
    customer text          not null,
    cents    bigint        not null,
    currency text,
    note     text          not null
);

insert into stock
select 'SKU-' || n, 1000000 from generate_series(1, 50) n;
-- Sold out.
insert into stock values ('SKU-0', 0);

insert into orders (customer)
select 'customer-' || n % 20 from generate_series(1, 500) n;

-- The second invoice of the customer "imported" came from an older system, without a currency.
insert into invoices (customer, cents, currency, note)
select c.customer, n * 199, case when c.customer = 'imported' and n = 2 then null else 'EUR' end,
       'Goods delivered as ordered, payable within thirty days, number ' || n
from (select 'customer-' || m as customer from generate_series(0, 19) m
      union all select 'imported') c,
     generate_series(1, 300) n;
