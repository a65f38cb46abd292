//! The service: it shows carts, as it should, and leaks a connection now and then.

use std::io;
use std::thread::{self, sleep};
use std::time::Duration;

use rustix::process::{Pid, getppid};

use super::client::{Pool, Session};

/// Time between two requests.
const PAUSE: Duration = Duration::from_millis(100);
/// It looks for stock at every tenth request, and exports invoices at every fifteenth.
const STOCK: u32 = 10;
const INVOICES: u32 = 15;
/// Every so many requests for stock fail.
const SOLD_OUT: u32 = 2;

/// A shop, and what it has forgotten to give back.
struct Shop {
    pool: Pool,
    forgotten: Vec<Session>,
}

/// Serves requests, until whoever started it or the server is gone.
///
/// # Errors
///
/// When it cannot begin.
pub fn run(port: u16) -> io::Result<()> {
    // The name by which the report calls it.
    rustix::thread::set_name(c"demo-orders")?;
    let parent = getppid();
    let worker = thread::Builder::new().spawn(move || serve(port, parent))?;
    // It ends with an error when the server is gone, as it is to.
    let _ = worker.join();
    Ok(())
}

fn serve(port: u16, parent: Option<Pid>) -> io::Result<()> {
    let mut shop = Shop { pool: Pool::new(port), forgotten: Vec::new() };
    for request in 1_u32.. {
        shop.show_cart()?;
        if request.is_multiple_of(STOCK) {
            shop.reserve_stock((request / STOCK).is_multiple_of(SOLD_OUT))?;
        }
        if request.is_multiple_of(INVOICES) {
            shop.export_invoices()?;
        }
        sleep(PAUSE);
        if getppid() != parent {
            break;
        }
    }
    Ok(())
}

impl Shop {
    /// Takes a connection and gives it back.
    #[inline(never)]
    fn show_cart(&mut self) -> io::Result<()> {
        let mut session = self.pool.take()?;
        session.query("select * from carts where id = 1")?;
        self.pool.give_back(session);
        Ok(())
    }

    /// Forgets the transaction when the article is sold out.
    #[inline(never)]
    fn reserve_stock(&mut self, sold_out: bool) -> io::Result<()> {
        let mut session = self.pool.take()?;
        session.query("begin")?;
        session.query("update stock set count = count - 1 where article = 1")?;
        if sold_out {
            self.forgotten.push(session);
            return Ok(());
        }
        session.query("commit")?;
        self.pool.give_back(session);
        Ok(())
    }

    /// Never gives its connection back.
    #[inline(never)]
    fn export_invoices(&mut self) -> io::Result<()> {
        let mut session = self.pool.take()?;
        session.query("select * from invoices")?;
        self.forgotten.push(session);
        Ok(())
    }
}
