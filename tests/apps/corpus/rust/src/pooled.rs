//! The shop by tokio-postgres and deadpool.

use std::{env, fs, future::pending, mem, sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::{SinkExt as _, future::BoxFuture};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_postgres::{Client, Config, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::kit::{
    Begin, Done, encrypted, every, follow, leaked, pause, random, setting, wait_for_provider,
};

const PORT: &str = "select inet_client_port(), count(*) from orders";

/// Makes the shop, serves, and says how to begin with a pattern.
pub(crate) fn prepare(pattern: &str) -> Result<Begin, Box<dyn std::error::Error + Send + Sync>> {
    let shop = Shop { pool: open_pool(setting("CORPUS_POOL"))? };
    let pace = setting("CORPUS_EVERY");
    if pattern != "idle" {
        for _ in 0..2 {
            let shop = shop.clone();
            every(setting("CORPUS_LOAD"), move || shop.clone().serve());
        }
    }
    let handler: fn(Shop) -> BoxFuture<'static, Done> = match pattern {
        "rows" => |shop| Box::pin(shop.export_invoices()),
        "transaction" => |shop| Box::pin(shop.reserve_stock()),
        "failed_transaction" => |shop| Box::pin(shop.apply_coupon()),
        "not_returned" => |shop| Box::pin(shop.customer_report()),
        "rare" => |shop| Box::pin(shop.sync_prices()),
        "pool_per_request" => |shop| Box::pin(shop.monthly_statement()),
        "connection_per_request" => |shop| Box::pin(shop.sync_inventory()),
        "copy_open" => |shop| Box::pin(shop.bulk_import()),
        "lost_task" => |shop| Box::pin(shop.send_receipts()),
        "stuck" => |shop| Box::pin(shop.charge_card()),
        "connect_hang" => |shop| Box::pin(shop.query_warehouse()),
        "steady" => |_| Box::pin(async { Ok(()) }),
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
        "bursty" => |shop| Box::pin(async move { shop.burst(1 + random(25)).await }),
        "per_request" => |shop| Box::pin(shop.per_request()),
        "slow_cursor" => |shop| Box::pin(shop.slow_cursor()),
        "cancelled" => |shop| Box::pin(shop.cancelled()),
        _ => return Err("unknown pattern".into()),
    };
    Ok(Box::new(move || follow(pace, move || handler(shop.clone()))))
}

fn config(port: u64) -> Result<Config, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(u16::try_from(port)?)
        .user(env::var("PGUSER")?)
        .dbname(env::var("PGDATABASE")?)
        .application_name(env::var("PGAPPNAME")?)
        .ssl_mode(if encrypted() { SslMode::Require } else { SslMode::Disable });
    Ok(config)
}

fn tls() -> Result<MakeRustlsConnect, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    let file = fs::read(env::var("CORPUS_CERTIFICATE")?)?;
    roots.add(CertificateDer::from_pem_slice(&file)?)?;
    let config =
        ClientConfig::builder().with_root_certificates(Arc::new(roots)).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn open_pool(most: u64) -> Result<Pool, Box<dyn std::error::Error + Send + Sync>> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let config = config(setting("PGPORT"))?;
    let manager = if encrypted() {
        Manager::from_config(config, tls()?, recycling)
    } else {
        Manager::from_config(config, NoTls, recycling)
    };
    let wait = Duration::from_secs(5);
    Ok(Pool::builder(manager)
        .max_size(usize::try_from(most)?)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(wait))
        .build()?)
}

/// Connects without a pool.
async fn dial(port: u64) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let config = config(port)?;
    if encrypted() {
        let (client, connection) = config.connect(tls()?).await?;
        tokio::spawn(connection);
        Ok(client)
    } else {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

#[derive(Clone)]
struct Shop {
    pool: Pool,
}

impl Shop {
    async fn serve(self) -> Done {
        if random(3) == 0 { self.place_order().await } else { self.list_orders().await }
    }

    async fn list_orders(&self) -> Done {
        let client = self.pool.get().await?;
        client.query("select id, customer from orders order by id desc limit 20", &[]).await?;
        Ok(())
    }

    async fn place_order(&self) -> Done {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        transaction
            .execute("insert into orders (customer, cents) values ('customer-7', 100)", &[])
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Reads a portal's first rows and forgets the rest, the transaction and the client.
    async fn export_invoices(self) -> Done {
        let mut client = self.pool.get().await?;
        let port: i32 = client.query_one(PORT, &[]).await?.get(0);
        let transaction = client.transaction().await?;
        let portal = transaction.bind("select id, note from orders", &[]).await?;
        transaction.query_portal(&portal, 10).await?;
        leaked(port);
        mem::forget((portal, transaction));
        mem::forget(client);
        Ok(())
    }

    async fn reserve_stock(self) -> Done {
        let client = self.pool.get().await?;
        client.batch_execute("begin").await?;
        leaked(client.query_one(PORT, &[]).await?.get(0));
        mem::forget(client);
        Ok(())
    }

    async fn apply_coupon(self) -> Done {
        let client = self.pool.get().await?;
        let port = client.query_one(PORT, &[]).await?.get(0);
        client.batch_execute("begin").await?;
        if client.batch_execute("update orders set cents = cents / 0 where id = 1").await.is_err() {
            leaked(port);
            mem::forget(client);
        }
        Ok(())
    }

    async fn customer_report(self) -> Done {
        let client = self.pool.get().await?;
        leaked(client.query_one(PORT, &[]).await?.get(0));
        mem::forget(client);
        Ok(())
    }

    async fn sync_prices(self) -> Done {
        for number in 1..=1000 {
            let client = self.pool.get().await?;
            let port = client.query_one("select inet_client_port()", &[]).await?.get(0);
            if number == 1000 {
                leaked(port);
                mem::forget(client);
            }
        }
        Ok(())
    }

    async fn monthly_statement(self) -> Done {
        let pool = open_pool(2)?;
        leaked(pool.get().await?.query_one(PORT, &[]).await?.get(0));
        mem::forget(pool);
        Ok(())
    }

    async fn sync_inventory(self) -> Done {
        let client = dial(setting("PGPORT")).await?;
        leaked(client.query_one(PORT, &[]).await?.get(0));
        mem::forget(client);
        Ok(())
    }

    async fn bulk_import(self) -> Done {
        let client = self.pool.get().await?;
        let port = client.query_one(PORT, &[]).await?.get(0);
        let sink = client.copy_in("copy imported from stdin").await?;
        let mut sink = Box::pin(sink);
        for _ in 0..1000 {
            sink.send(&b"a customer with a long name\t100\n"[..]).await?;
        }
        leaked(port);
        mem::forget(sink);
        mem::forget(client);
        Ok(())
    }

    /// Leaves a task behind that waits for ever, holding its client.
    async fn send_receipts(self) -> Done {
        tokio::spawn(async move {
            let client = self.pool.get().await?;
            leaked(client.query_one(PORT, &[]).await?.get(0));
            pending::<Done>().await
        });
        Ok(())
    }

    async fn charge_card(self) -> Done {
        tokio::spawn(async move {
            let client = self.pool.get().await?;
            leaked(client.query_one(PORT, &[]).await?.get(0));
            wait_for_provider().await
        });
        Ok(())
    }

    async fn query_warehouse(self) -> Done {
        leaked(0);
        tokio::spawn(async { dial(setting("CORPUS_HOLE")).await.map(drop) });
        Ok(())
    }

    async fn burst(&self, size: u64) -> Done {
        let mut held = Vec::new();
        for _ in 0..size {
            let client = self.pool.get().await?;
            client.query_one(PORT, &[]).await?;
            held.push(client);
        }
        Ok(())
    }

    async fn per_request(self) -> Done {
        dial(setting("PGPORT")).await?.query_one(PORT, &[]).await?;
        Ok(())
    }

    async fn slow_cursor(self) -> Done {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let portal = transaction.bind("select id from orders", &[]).await?;
        for _ in 0..10 {
            transaction.query_portal(&portal, 20).await?;
            pause(1500).await;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn cancelled(self) -> Done {
        let client = self.pool.get().await?;
        let token = client.cancel_token();
        tokio::spawn(async move {
            pause(100).await;
            if encrypted() {
                token.cancel_query(tls()?).await?
            } else {
                token.cancel_query(NoTls).await?
            }
            Done::Ok(())
        });
        // The answer is that it was cancelled.
        let _ = client.batch_execute("select pg_sleep(30)").await;
        Ok(())
    }
}
