create table orders (id bigserial primary key, customer text not null, cents bigint not null, note text);
insert into orders (customer, cents) select 'customer-' || n % 20, n * 37 % 5000 from generate_series(1, 500) n;
create table imported (customer text, cents bigint);
