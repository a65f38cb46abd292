//! The shop by sqlx and its pool.

use std::{env, future::pending, mem, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{
    Connection as _, PgConnection, PgPool, Row as _,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode},
};

use crate::kit::{
    Begin, Done, encrypted, every, follow, leaked, pause, random, setting, wait_for_provider,
};

const PORT: &str = "select inet_client_port(), count(*) from orders";

/// Makes the shop, serves, and says how to begin with a pattern.
pub(crate) async fn prepare(
    pattern: &str,
) -> Result<Begin, Box<dyn std::error::Error + Send + Sync>> {
    let options = open_pool();
    let options = match pattern {
        "rotation" => options.max_lifetime(Duration::from_secs(4)).min_connections(6),
        "min_idle" => options.idle_timeout(Duration::from_secs(6)).min_connections(8),
        "warm_up" => options.max_connections(60),
        _ => options,
    };
    let shop = Shop { pool: options.connect_with(address(setting("PGPORT"))?).await? };
    let pace = setting("CORPUS_EVERY");
    if pattern != "idle" {
        for _ in 0..2 {
            let shop = shop.clone();
            every(setting("CORPUS_LOAD"), move || shop.clone().serve());
        }
    }
    let handler: fn(Shop) -> BoxFuture<'static, Done> = match pattern {
        "transaction" => |shop| Box::pin(shop.reserve_stock()),
        "failed_transaction" => |shop| Box::pin(shop.apply_coupon()),
        "not_returned" => |shop| Box::pin(shop.customer_report()),
        "rare" => |shop| Box::pin(shop.sync_prices()),
        "pool_per_request" => |shop| Box::pin(shop.monthly_statement()),
        "connection_per_request" => |shop| Box::pin(shop.sync_inventory()),
        "lost_task" => |shop| Box::pin(shop.send_receipts()),
        "stuck" => |shop| Box::pin(shop.charge_card()),
        "connect_hang" => |shop| Box::pin(shop.query_warehouse()),
        "steady" | "rotation" => |_| Box::pin(async { Ok(()) }),
        "min_idle" | "bursty" => |shop| Box::pin(async move { shop.burst(1 + random(25)).await }),
        "idle" => |shop| {
            Box::pin(async move {
                shop.burst(9).await?;
                pending().await
            })
        },
        "warm_up" => |shop| {
            Box::pin(async move {
                shop.burst(50).await?;
                pending().await
            })
        },
        "per_request" => |shop| Box::pin(shop.per_request()),
        "listen" => |shop| Box::pin(shop.listen()),
        _ => return Err("unknown pattern".into()),
    };
    Ok(Box::new(move || follow(pace, move || handler(shop.clone()))))
}

fn address(port: u64) -> Result<PgConnectOptions, Box<dyn std::error::Error + Send + Sync>> {
    Ok(PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(u16::try_from(port)?)
        .username(&env::var("PGUSER")?)
        .database(&env::var("PGDATABASE")?)
        .application_name(&env::var("PGAPPNAME")?)
        .ssl_mode(if encrypted() { PgSslMode::Require } else { PgSslMode::Disable }))
}

fn open_pool() -> PgPoolOptions {
    let most = u32::try_from(setting("CORPUS_POOL")).unwrap_or(10);
    PgPoolOptions::new().max_connections(most).acquire_timeout(Duration::from_secs(5))
}

#[derive(Clone)]
struct Shop {
    pool: PgPool,
}

impl Shop {
    async fn serve(self) -> Done {
        if random(3) == 0 { self.place_order().await } else { self.list_orders().await }
    }

    async fn list_orders(&self) -> Done {
        sqlx::query("select id, customer from orders order by id desc limit 20")
            .fetch_all(&self.pool)
            .await?;
        Ok(())
    }

    async fn place_order(&self) -> Done {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("insert into orders (customer, cents) values ('customer-7', 100)")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn reserve_stock(self) -> Done {
        let mut transaction = self.pool.begin().await?;
        leaked(sqlx::query(PORT).fetch_one(&mut *transaction).await?.get(0));
        mem::forget(transaction);
        Ok(())
    }

    async fn apply_coupon(self) -> Done {
        let mut transaction = self.pool.begin().await?;
        let port = sqlx::query(PORT).fetch_one(&mut *transaction).await?.get(0);
        let coupon = sqlx::query("update orders set cents = cents / 0 where id = 1");
        if coupon.execute(&mut *transaction).await.is_err() {
            leaked(port);
            mem::forget(transaction);
        }
        Ok(())
    }

    async fn customer_report(self) -> Done {
        let mut connection = self.pool.acquire().await?;
        leaked(sqlx::query(PORT).fetch_one(&mut *connection).await?.get(0));
        mem::forget(connection);
        Ok(())
    }

    async fn sync_prices(self) -> Done {
        for number in 1..=1000 {
            let mut connection = self.pool.acquire().await?;
            let port =
                sqlx::query("select inet_client_port()").fetch_one(&mut *connection).await?.get(0);
            if number == 1000 {
                leaked(port);
                mem::forget(connection);
            }
        }
        Ok(())
    }

    async fn monthly_statement(self) -> Done {
        let pool = open_pool().connect_with(address(setting("PGPORT"))?).await?;
        leaked(sqlx::query(PORT).fetch_one(&pool).await?.get(0));
        mem::forget(pool);
        Ok(())
    }

    async fn sync_inventory(self) -> Done {
        let mut connection = PgConnection::connect_with(&address(setting("PGPORT"))?).await?;
        leaked(sqlx::query(PORT).fetch_one(&mut connection).await?.get(0));
        mem::forget(connection);
        Ok(())
    }

    /// Leaves a task behind that waits for ever, holding its connection.
    async fn send_receipts(self) -> Done {
        tokio::spawn(async move {
            let mut connection = self.pool.acquire().await?;
            leaked(sqlx::query(PORT).fetch_one(&mut *connection).await?.get(0));
            pending::<Done>().await
        });
        Ok(())
    }

    async fn charge_card(self) -> Done {
        tokio::spawn(async move {
            let mut connection = self.pool.acquire().await?;
            leaked(sqlx::query(PORT).fetch_one(&mut *connection).await?.get(0));
            wait_for_provider().await
        });
        Ok(())
    }

    async fn query_warehouse(self) -> Done {
        leaked(0);
        tokio::spawn(async {
            PgConnection::connect_with(&address(setting("CORPUS_HOLE"))?).await?;
            Done::Ok(())
        });
        Ok(())
    }

    async fn burst(&self, size: u64) -> Done {
        let mut held = Vec::new();
        for _ in 0..size {
            let mut connection = self.pool.acquire().await?;
            sqlx::query(PORT).fetch_one(&mut *connection).await?;
            held.push(connection);
        }
        Ok(())
    }

    async fn per_request(self) -> Done {
        let mut connection = PgConnection::connect_with(&address(setting("PGPORT"))?).await?;
        sqlx::query(PORT).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    async fn listen(self) -> Done {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen("orders").await?;
        loop {
            listener.recv().await?;
            pause(1).await;
        }
    }
}
