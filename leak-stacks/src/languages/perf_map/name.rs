//! The names that runtimes write into perf maps, split into function, file and line.
//!
//! Every runtime has a manner of its own, and none says which. A name in no known manner is the
//! function's as it stands.

use crate::binary::symbols::{Symbol, shortened};

/// What V8 puts before the names of JavaScript's functions (`LogEventListener::CodeTag` of V8's
/// src/logging/log.h, and those of older releases).
const V8_KINDS: [&str; 7] =
    ["JS:", "LazyCompile:", "InterpretedFunction:", "Function:", "Script:", "Eval:", "Callback:"];

/// What V8 adds for the compiler that made the code, from the interpreter's bytecode to the best.
const V8_TIERS: [char; 4] = ['~', '^', '+', '*'];

/// How the place of a script begins, after its function's name, which may hold spaces, too.
const SCRIPTS: [&str; 6] = [" /", " file:", " node:", " evalmachine.", " [", " webpack"];

/// Splits what a perf map says of a piece of code.
///
/// The line is where the function begins: a perf map does not know which of its lines runs.
pub(crate) fn split(name: &str) -> Symbol {
    let name = name.trim();
    javascript(name)
        .or_else(|| python(name))
        .or_else(|| php(name))
        .or_else(|| dotnet(name))
        .or_else(|| java(name))
        .or_else(|| erlang(name))
        .unwrap_or_else(|| called(name))
}

/// A function of which no more is known.
fn called(function: &str) -> Symbol {
    Symbol { function: Some(shortened(function)), file: None, line: None }
}

fn located(function: &str, file: &str, line: Option<u32>) -> Symbol {
    let file = (!file.is_empty()).then(|| shortened(file));
    Symbol { function: Some(shortened(function)), file, line }
}

/// `JS:*askForInvoice /app/shop.js:30:23`, `LazyCompile:~get file:///app/shop.mjs:1:2`.
fn javascript(name: &str) -> Option<Symbol> {
    let rest = V8_KINDS.iter().find_map(|kind| name.strip_prefix(kind))?;
    let rest = rest.strip_prefix(V8_TIERS).unwrap_or(rest);
    let at = SCRIPTS
        .iter()
        .filter_map(|start| rest.find(start))
        .min()
        .or_else(|| rest.rfind(' '))
        .unwrap_or(rest.len());
    let (function, script) = rest.split_at(at);
    let function = if function.is_empty() { "<anonymous>" } else { function };
    let script = script.trim_start();
    let script = script.strip_prefix("file://").unwrap_or(script);
    let number = |text: &str| text.parse::<u32>().ok();
    let (file, line) = match script.rsplitn(3, ':').collect::<Vec<_>>()[..] {
        [column, line, file] if number(column).is_some() && number(line).is_some() => {
            (file, number(line))
        }
        [line, ref file @ ..] if number(line).is_some() && !file.is_empty() => {
            (script.strip_suffix(line).and_then(|f| f.strip_suffix(':'))?, number(line))
        }
        _ => (script, None),
    };
    Some(located(function, file, line))
}

/// `py::Shop.checkout:/app/shop.py`, of CPython's Python/perf_trampoline.c.
fn python(name: &str) -> Option<Symbol> {
    let (function, file) = name.strip_prefix("py::")?.split_once(':')?;
    Some(located(function, file, None))
}

/// `JIT$Shop::checkout` and `TRACE-12$Shop::checkout$45`, of opcache's ext/opcache/jit; in place of
/// a function the main script's path.
fn php(name: &str) -> Option<Symbol> {
    if let Some(function) = name.strip_prefix("JIT$") {
        return Some(called(function));
    }
    let (number, rest) = name.strip_prefix("TRACE-")?.split_once('$')?;
    number.parse::<u32>().ok()?;
    let (function, line) = rest.rsplit_once('$')?;
    let line = line.parse().ok();
    Some(match function.starts_with('/') {
        true => located("{main}", function, line),
        false => Symbol { line: None, ..located(function, "", line) },
    })
}

/// `instance void [Shop] Shop.Orders::Invoice(int32)[OptimizedTier1]`, of .NET's perfmap.cpp.
fn dotnet(name: &str) -> Option<Symbol> {
    const TIERS: [&str; 3] = ["Tier", "Optimi", "PreJIT"];
    let (signature, tier) = name.strip_suffix(']')?.rsplit_once('[')?;
    if !signature.contains("::") || !TIERS.iter().any(|known| tier.contains(known)) {
        return None;
    }
    let method = signature.split_once('(').map_or(signature, |(method, _)| method);
    let method = method.rsplit_once("] ").map_or(method, |(_, method)| method);
    Some(called(method.rsplit_once(' ').map_or(method, |(_, method)| method)))
}

/// Java's method as Java writes it, from `void com.acme.Shop.checkout(int)` (the JVM's own
/// `Compiler.perfmap`), `Lcom/acme/Shop;::checkout` or `com/acme/Shop.checkout` (agents).
fn java(name: &str) -> Option<Symbol> {
    if let Some(method) = name.strip_suffix(')').and_then(|method| method.split_once('(')) {
        let (_type, method) = method.0.split_once(' ')?;
        return (method.contains('.') && !method.contains(' ')).then(|| called(method));
    }
    if let Some((class, method)) = name.strip_prefix('L').and_then(|rest| rest.split_once(";::")) {
        return Some(called(&format!("{}.{method}", class.replace('/', "."))));
    }
    let (class, method) = name.rsplit_once('.')?;
    let is_word = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "_$<>".contains(c));
    let is_class =
        class.contains('/') && class.split('/').all(|part| !part.is_empty() && is_word(part));
    (is_class && is_word(method)).then(|| called(&format!("{}.{method}", class.replace('/', "."))))
}

/// `$shop:checkout/2`, of Erlang's emulator.
fn erlang(name: &str) -> Option<Symbol> {
    let rest = name.strip_prefix('$')?;
    let (function, arity) = rest.rsplit_once('/')?;
    (function.contains(':') && arity.parse::<u8>().is_ok()).then(|| called(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_split(name: &str, function: &str, file: &str, line: Option<u32>) {
        assert_eq!(split(name), located(function, file, line), "{name}");
    }

    #[test]
    fn javascript_of_every_tier() {
        for tier in ["~", "*", "^", "+", ""] {
            let name = format!("JS:{tier}askForInvoice /app/shop.js:30:23");
            assert_split(&name, "askForInvoice", "/app/shop.js", Some(30));
        }
        assert_split("LazyCompile:*get total /a b/x.js:1:2", "get total", "/a b/x.js", Some(1));
        assert_split("JS:~ /app/shop.js:1:1", "<anonymous>", "/app/shop.js", Some(1));
        assert_split("Function:~go file:///app/x.mjs:12:5", "go", "/app/x.mjs", Some(12));
        let internal = "JS:^writeGeneric node:internal/stream_base_commons:148:22";
        assert_split(internal, "writeGeneric", "node:internal/stream_base_commons", Some(148));
        assert_split("LazyCompile:~f x.js:7", "f", "x.js", Some(7));
        assert_split(
            "Script:~ evalmachine.<anonymous>:1:1",
            "<anonymous>",
            "evalmachine.<anonymous>",
            Some(1),
        );
        assert_split("JS:~alone", "alone", "", None);
        assert_split("JS:~", "<anonymous>", "", None);
        assert_split("JS:~f ::", "f", "::", None);
    }

    #[test]
    fn java_in_three_manners() {
        for name in [
            "void com.acme.Shop.checkout(int, java.lang.String)",
            "Lcom/acme/Shop;::checkout",
            "com/acme/Shop.checkout",
        ] {
            assert_split(name, "com.acme.Shop.checkout", "", None);
        }
        let array = "java.lang.Object[] com.acme.Shop.<init>()";
        assert_split(array, "com.acme.Shop.<init>", "", None);
        assert_split("com.acme.Shop::checkout", "com.acme.Shop::checkout", "", None);
        for stub in ["Interpreter", "StubRoutines (1)", "new_instance Runtime1 stub"] {
            assert_split(stub, stub, "", None);
        }
    }

    #[test]
    fn other_runtimes() {
        assert_split("py::Shop.pay:/app/shop.py", "Shop.pay", "/app/shop.py", None);
        assert_split("TRACE-1$/app/shop.php$59", "{main}", "/app/shop.php", Some(59));
        assert_split("TRACE-7$Shop::pay$12", "Shop::pay", "", None);
        assert_split("JIT$Shop::pay", "Shop::pay", "", None);
        let method = "instance void [Shop] Shop.Orders::Pay(int32,class [x]y)[OptimizedTier1]";
        assert_split(method, "Shop.Orders::Pay", "", None);
        let quick =
            "void [System.Private.CoreLib] System.Threading.Thread::StartCallback()[PreJIT]";
        assert_split(quick, "System.Threading.Thread::StartCallback", "", None);
        assert_split("$shop:pay/2", "shop:pay/2", "", None);
    }

    #[test]
    fn garbage_stays_what_it_is() {
        for name in [
            "", "L;::", "()", " (", "[Tier0]", "TRACE-", "TRACE-x$", "$", "$/", "py::", "/.",
            "a b(c",
        ] {
            split(name);
        }
        assert_split("std::vector<int>", "std::vector<int>", "", None);
        assert_split("checkout", "checkout", "", None);
        assert_eq!(split(&"x".repeat(5000)).function.unwrap().len(), 1024);
    }
}
