//! Nothing grows faster than what it is about, and a month changes nothing.

mod fleet;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::rc::Rc;

use fleet::{at_once, is_leaky, month, process_of};
use leak_user::outputs::{Format, Sinks};

#[test]
fn judging_grows_with_the_number_of_connections() {
    // A hundred times as much would be quadratic.
    const MOST: u32 = 30;
    let (few, _) = at_once(2_000);
    let (many, fleet) = at_once(20_000);
    assert!(many.events < few.events * MOST, "{few:?} {many:?}");
    assert!(many.refresh < few.refresh * MOST, "{few:?} {many:?}");
    assert!(many.judge < few.judge * MOST, "{few:?} {many:?}");
    assert!(many.publish < few.publish * MOST, "{few:?} {many:?}");
    let accused: BTreeSet<u64> =
        fleet.engine().accused().into_iter().map(|process| process.start_ticks).collect();
    assert_eq!(accused, (0..200).filter(|&process| is_leaky(process)).collect());
}

#[test]
fn a_month_is_judged_right_and_leaves_nothing_behind() {
    const PROCESSES: u64 = 100;
    let mut days = Vec::new();
    let printed = Printed::default();
    let sinks = Sinks::to(Format::Ndjson, printed.clone());
    month(PROCESSES, sinks, |_, fleet| {
        let table = fleet.engine().table();
        let connections = table.connections().count();
        days.push((connections, table.pools().count(), fleet.engine().processes_in_use().len()));
    });
    let text = String::from_utf8(printed.0.take()).unwrap();
    let found = |line: &&str| line.contains("\"event\":\"finding\"") && line.contains("\"leak\"");
    let blamed: BTreeSet<u32> = text.lines().filter(found).filter_map(pid).collect();
    let leaky = (0..PROCESSES).filter(|&process| is_leaky(process));
    let leaky: BTreeSet<u32> = leaky.map(|process| process_of(process * fleet::POOL).pid).collect();
    assert_eq!(blamed, leaky);
    let most = |of: fn(&(usize, usize, usize)) -> usize| days.iter().map(of).max();
    // A tenth of the processes live at once; pools are remembered for a while after their end.
    assert!(most(|day| day.0) <= Some(700), "{days:?}");
    assert!(most(|day| day.1) <= Some(20), "{days:?}");
    assert!(most(|day| day.2) <= Some(12), "{days:?}");
}

/// What an engine prints.
#[derive(Clone, Default)]
struct Printed(Rc<RefCell<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Which process a line of NDJSON is about.
fn pid(line: &str) -> Option<u32> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    u32::try_from(line["process"]["pid"].as_u64()?).ok()
}
