//! Which frame of a stack is the application's, and what the application is written in.

use std::sync::LazyLock;

use super::driver_frames::DriverFrames;
use super::{Frame, Language};

/// The rules, one a line; the file explains itself.
const RULES: &str = include_str!("culprit_rules.txt");

static PARSED: LazyLock<Rules> = LazyLock::new(|| Rules::parse(RULES));

type Globs = Vec<&'static str>;
/// Globs for the names of functions that are written in a language, or run on it.
type Names = Vec<(Language, &'static str)>;

#[derive(Debug, Default)]
struct Rules {
    languages: Names,
    modules: Globs,
    functions: Names,
    packages: Globs,
    files: Globs,
    dependencies: Globs,
    loop_functions: Names,
    loop_files: Globs,
    interpreters: Globs,
    /// Lines that are no rules; a test keeps this at none.
    malformed: usize,
}

impl Rules {
    fn parse(text: &'static str) -> Self {
        let mut rules = Self::default();
        let mut section = None;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if rules.take(line, &mut section).is_none() {
                rules.malformed += 1;
            }
        }
        rules
    }

    fn take(&mut self, line: &'static str, section: &mut Option<Language>) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let rest = rest.trim();
        match kind {
            "for" => *section = Some(language(rest)?),
            "language" => {
                let (name, glob) = rest.split_once(' ')?;
                self.languages.push((language(name)?, glob.trim()));
            }
            "function" => self.functions.push(((*section)?, rest)),
            "loop-function" => self.loop_functions.push(((*section)?, rest)),
            "module" => self.modules.push(rest),
            "package" => self.packages.push(rest),
            "file" => self.files.push(rest),
            "dependency" => self.dependencies.push(rest),
            "loop-file" => self.loop_files.push(rest),
            "interpreter" => self.interpreters.push(rest),
            _ => return None,
        }
        Some(())
    }
}

fn language(name: &str) -> Option<Language> {
    serde_json::from_value(name.into()).ok()
}

/// Directories into which Python packages are installed.
const PACKAGES: [&str; 2] = ["/site-packages/", "/dist-packages/"];

/// How good a culprit a frame is, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Of a library that the application has installed, or made up by one at run time (`<string>`).
    Dependency,
    Application,
}

/// Index of the innermost frame of a stack that belongs to the application; `None` when no frame
/// does, or none that does has a name. Frames further out than an event loop have only started it.
pub(super) fn culprit(
    frames: &[Frame],
    language: Language,
    drivers: &[DriverFrames],
) -> Option<usize> {
    let frames = frames.iter().take_while(|frame| !is_loop(frame, language)).enumerate();
    let ranked = frames.filter_map(|(index, frame)| Some((rank(frame, language, drivers)?, index)));
    ranked.max_by_key(|&(rank, index)| (rank, std::cmp::Reverse(index))).map(|(_, index)| index)
}

/// `None`: the frame is a runtime's, a driver's or a framework's.
fn rank(frame: &Frame, language: Language, drivers: &[DriverFrames]) -> Option<Rank> {
    let function = frame.function.as_deref()?;
    let own = without_vendor(function);
    let module = frame.module.as_deref().map(base_name);
    let paths = || [&frame.file, &frame.module].into_iter().flatten();
    let is_library = any_name(&PARSED.functions, frame, language)
        || module.is_some_and(|module| any(&PARSED.modules, module))
        || paths().any(|path| is_library(path))
        || drivers.iter().any(|pattern| {
            [function, own].into_iter().chain(module).any(|name| pattern.matches(name))
                || paths().any(|path| pattern.matches(path))
        });
    if is_library {
        return None;
    }
    let is_made_up = frame.file.as_deref().is_some_and(|file| file.starts_with('<'));
    let is_dependency = paths().any(|path| any(&PARSED.dependencies, path));
    Some(if is_made_up || is_dependency { Rank::Dependency } else { Rank::Application })
}

fn is_loop(frame: &Frame, language: Language) -> bool {
    any_name(&PARSED.loop_functions, frame, language)
        || frame.file.as_deref().is_some_and(|file| any(&PARSED.loop_files, file))
}

/// Whether one of the globs for a frame's language matches its function.
///
/// The same name is a driver's in one language and an application's in another. In a stack of a
/// runtime's, frames in a module are native, those in none compiled at run time, and those in a
/// source file an interpreter's calls, which only their file tells.
fn any_name(names: &Names, frame: &Frame, language: Language) -> bool {
    let Some(function) = frame.function.as_deref() else { return false };
    let is_native = frame.module.is_some();
    if is_native && frame.module == frame.file {
        return false;
    }
    let own = without_vendor(function);
    let placed = in_crate(frame);
    let applies = |of: Language| match of {
        Language::Native => is_native,
        _ => of == language && (!is_native || of == Language::Go),
    };
    let mut globs = names.iter().filter(|(of, _)| applies(*of));
    globs.any(|(_, glob)| {
        matches(glob, own)
            || matches(glob, subject(own))
            || placed.as_deref().is_some_and(|placed| matches(glob, placed))
    })
}

/// The name of a function of Rust's with the crate and the modules that its file lies in, when it has
/// none itself: inlined ones do not where debug information is of lines alone.
fn in_crate(frame: &Frame) -> Option<String> {
    const CRATES: [(&str, usize); 3] =
        [("/rustc/", 2), ("/registry/src/", 1), ("/git/checkouts/", 2)];
    let function = frame.function.as_deref()?;
    if function.split('<').next()?.contains("::") {
        return None;
    }
    let file = frame.file.as_deref()?;
    let (below, skipped) =
        CRATES.iter().find_map(|(root, skipped)| Some((file.split_once(root)?.1, *skipped)))?;
    let mut parts = below.trim_end_matches(".rs").split('/').skip(skipped);
    let package = parts.next()?;
    let is_version = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let name = match package.rsplit_once('-') {
        Some((name, version)) if is_version(version) => name,
        _ => package,
    };
    let mut path = name.replace('-', "_");
    for part in parts.filter(|part| !matches!(*part, "src" | "lib" | "mod")).chain([function]) {
        path.push_str("::");
        path.push_str(part);
    }
    Some(path)
}

/// Whether this is code that runs other code which has no frame of its own: the stack does not show
/// what is run, and an optimizing compiler may take the frame away at any time.
pub(super) fn is_interpreter(function: &str) -> bool {
    any(&PARSED.interpreters, function)
}

/// Whether a source file or module belongs to a library.
fn is_library(path: &str) -> bool {
    let below = |directory: &&str| path.rfind(*directory).map(|at| at + directory.len());
    match PACKAGES.iter().filter_map(below).max().and_then(|at| path.get(at..)) {
        Some(package) => any(&PARSED.packages, package),
        None => any(&PARSED.files, path),
    }
}

/// Language of a stack by the modules it runs through, then by the process's executable: a
/// truncated stack does not reach the interpreter.
pub(super) fn language_of<'a>(
    frames: impl Iterator<Item = &'a str>,
    executable: Option<&'a str>,
) -> Language {
    frames
        .chain(executable)
        .map(base_name)
        .find_map(|m| PARSED.languages.iter().find(|(_, glob)| matches(glob, m)).map(|(l, _)| *l))
        .unwrap_or(Language::Native)
}

/// The last part of a path.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A Go function's name without the path that vendoring puts in front of its package.
fn without_vendor(function: &str) -> &str {
    match function.rsplit_once("/vendor/") {
        Some((_, vendored)) => vendored,
        None => function.strip_prefix("vendor/").unwrap_or(function),
    }
}

/// The type that a Rust method is of: `<&mut sqlx::Pool as Future>::poll` is one of `sqlx::Pool`.
fn subject(function: &str) -> &str {
    let mut rest = function;
    while let Some(shorter) =
        ["<", "&", "mut ", "*const ", "dyn ", "["].iter().find_map(|mark| rest.strip_prefix(mark))
    {
        rest = shorter;
    }
    rest
}

fn any(globs: &Globs, text: &str) -> bool {
    globs.iter().any(|glob| matches(glob, text))
}

/// Whether `text` as a whole matches `glob`, where `*` stands for any characters and `?` for one
/// digit.
pub(super) fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    // Where to resume when a literal fails: after the latest star, one character later.
    let (mut g, mut t, mut resume) = (0, 0, None);
    while let Some(&character) = text.get(t) {
        match glob.get(g) {
            Some(b'*') => {
                g += 1;
                resume = Some((g, t));
                continue;
            }
            Some(b'?') if character.is_ascii_digit() => {}
            Some(&literal) if literal == character => {}
            _ => match resume {
                Some((after_star, from)) => {
                    resume = Some((after_star, from + 1));
                    (g, t) = (after_star, from + 1);
                    continue;
                }
                None => return false,
            },
        }
        (g, t) = (g + 1, t + 1);
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(list: &[(&str, &str)]) -> Vec<Frame> {
        list.iter()
            .map(|(function, module)| Frame {
                function: (!function.is_empty()).then(|| (*function).to_owned()),
                module: Some((*module).to_owned()),
                file: None,
                line: None,
                address: 0,
            })
            .collect()
    }

    fn culprit_of(language: Language, list: &[(&str, &str)]) -> Option<String> {
        let frames = frames(list);
        culprit(&frames, language, &[]).and_then(|i| frames[i].function.clone())
    }

    #[test]
    fn every_line_is_a_rule() {
        assert_eq!(PARSED.malformed, 0);
        assert!(PARSED.functions.len() > 100);
    }

    #[test]
    fn globs() {
        assert!(matches("a*c", "abbc") && matches("a*", "a") && matches("*", ""));
        assert!(matches("*node:*", "x node:net") && matches("ruby?.*", "ruby3.1"));
        assert!(!matches("a*c", "abcd") && !matches("a", "ab") && !matches("ab", "a"));
        assert!(!matches("ruby?.*", "rubyx.1"));
    }

    #[test]
    fn a_go_handler_under_the_web_server_is_chosen() {
        let app = "/app/server";
        let found = culprit_of(
            Language::Go,
            &[
                ("internal/runtime/syscall.Syscall6", app),
                ("syscall.write", app),
                ("net.(*conn).Write", app),
                ("app/vendor/github.com/jackc/pgx/v5/pgconn.(*PgConn).Exec", app),
                ("github.com/jackc/pgx/v5/pgxpool.(*Pool).Query", app),
                ("database/sql.(*DB).QueryContext", app),
                ("example.com/shop/orders.(*Handler).List", app),
                ("net/http.HandlerFunc.ServeHTTP", app),
                ("net/http.(*conn).serve", app),
                ("runtime.goexit", app),
            ],
        );
        assert_eq!(found.as_deref(), Some("example.com/shop/orders.(*Handler).List"));
        assert_eq!(
            culprit_of(
                Language::Go,
                &[("net.Dial", app), ("main.main", app), ("runtime.main", app)]
            )
            .as_deref(),
            Some("main.main")
        );
        // Packages whose names merely begin like the library's.
        assert_eq!(
            culprit_of(Language::Go, &[("network.Dial", app)]).as_deref(),
            Some("network.Dial")
        );
    }

    #[test]
    fn inlined_functions_of_rust_without_paths() {
        const REGISTRY: &str = "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        let frame = |function: &str, file: &str| Frame {
            function: Some(function.to_owned()),
            module: Some("/usr/bin/shop".to_owned()),
            file: Some(file.to_owned()),
            line: None,
            address: 0,
        };
        let library = [
            frame("connect", &format!("{REGISTRY}/mio-1.2.5/src/net/tcp/stream.rs")),
            frame(
                "{async_fn#0}<(&str, u16)>",
                &format!("{REGISTRY}/tokio-1.54.1/src/net/tcp/stream.rs"),
            ),
            frame("{closure#0}", &format!("{REGISTRY}/sqlx-core-0.8.6/src/pool/mod.rs")),
            frame("call_once<fn(), ()>", "/rustc/5980/library/core/src/ops/function.rs"),
        ];
        assert_eq!(culprit(&library, Language::Native, &[]), None);
        let application = frame("{async_fn#0}", "/build/src/orders.rs");
        let task = frame("poll<T>", &format!("{REGISTRY}/tokio-1.54.1/src/runtime/task/core.rs"));
        let main = frame("main", "/build/src/main.rs");
        let mut frames = library.to_vec();
        frames.extend([task, main]);
        assert_eq!(culprit(&frames, Language::Native, &[]), None);
        frames.insert(4, application);
        assert_eq!(culprit(&frames, Language::Native, &[]), Some(4));
        let unknown = frame("{closure#0}", &format!("{REGISTRY}/own-driver-0.1.0/src/lib.rs"));
        assert_eq!(in_crate(&unknown).as_deref(), Some("own_driver::{closure#0}"));
        assert_eq!(in_crate(&frame("a::b", &format!("{REGISTRY}/mio-1.2.5/src/lib.rs"))), None);
    }

    #[test]
    fn rust_and_c_applications() {
        let app = "/usr/bin/shop";
        let found = culprit_of(
            Language::Native,
            &[
                ("__send", "/lib/x86_64-linux-gnu/libc.so.6"),
                ("<&std::net::tcp::TcpStream as std::io::Write>::write", app),
                ("<tokio::net::tcp::stream::TcpStream as tokio::io::AsyncWrite>::poll_write", app),
                ("sqlx_postgres::connection::PgConnection::run::{{closure}}", app),
                ("shop::orders::list::{{closure}}", app),
                ("tokio::runtime::task::raw::poll", app),
            ],
        );
        assert_eq!(found.as_deref(), Some("shop::orders::list::{{closure}}"));
        let found = culprit_of(
            Language::Native,
            &[
                ("send", "/usr/lib/libc.so.6"),
                ("PQsendQuery", "/app/wheels/libpq-a17e3caa.so.5.17"),
                ("", app),
                ("fetch_orders", app),
                ("main", app),
            ],
        );
        assert_eq!(found.as_deref(), Some("fetch_orders"));
    }

    #[test]
    fn an_interpreter_is_not_the_application() {
        let python = [
            ("send", "/lib/libc.so.6"),
            ("sock_send", "/usr/lib/python3.11/lib-dynload/_socket.cpython-311-x86_64.so"),
            ("_PyEval_EvalFrameDefault", "/usr/bin/python3.11"),
            ("Py_BytesMain", "/usr/bin/python3.11"),
            ("__libc_start_main", "/lib/libc.so.6"),
            ("_start", "/usr/bin/python3.11"),
        ];
        assert_eq!(culprit_of(Language::Python, &python), None);
        assert_eq!(language_of(python.iter().map(|f| f.1), None), Language::Python);
    }

    fn culprit_of_python(list: &[(&str, &str)]) -> Option<String> {
        let mut frames = frames(list);
        for frame in &mut frames {
            frame.file.clone_from(&frame.module);
        }
        culprit(&frames, Language::Python, &[]).and_then(|i| frames[i].function.clone())
    }

    #[test]
    fn python_libraries_are_not_the_application() {
        let library = "/usr/lib/python3/dist-packages/psycopg2/pool.py";
        let found = culprit_of_python(&[
            ("sock_send", "/usr/lib/python3.11/lib-dynload/_socket.cpython-311-x86_64.so"),
            ("AbstractConnectionPool._connect", library),
            ("Engine.connect", "/venv/lib/python3.12/site-packages/sqlalchemy/engine/base.py"),
            ("<lambda>", "<string>"),
            ("contextmanager", "/usr/lib/python3.9/contextlib.py"),
            ("checkout", "/srv/shop/shop.py"),
            ("Flask.wsgi_app", "/venv/lib/python3.12/site-packages/flask/app.py"),
        ]);
        assert_eq!(found.as_deref(), Some("checkout"));
        // An application that was installed as a package.
        let installed = "/venv/lib/python3.12/site-packages/shop/app.py";
        let found = culprit_of_python(&[("execute", library), ("checkout", installed)]);
        assert_eq!(found.as_deref(), Some("checkout"));
        // A copy beside the application, and a directory that merely begins like one.
        let found = culprit_of_python(&[
            ("connect", "/var/task/psycopg2/__init__.py"),
            ("checkout", "/var/task/psycopg2_shop/app.py"),
        ]);
        assert_eq!(found.as_deref(), Some("checkout"));
        // Programs that try a driver out.
        for own in ["/srv/asyncpg/app.py", "/srv/psycopg/main.py", "/srv/sqlalchemy/shop.py"] {
            let found = culprit_of_python(&[("execute", library), ("checkout", own)]);
            assert_eq!(found.as_deref(), Some("checkout"), "{own}");
        }
        let frozen = "<frozen importlib._bootstrap>";
        let found = culprit_of_python(&[("execute", library), ("run", frozen), ("f", "<stdin>")]);
        assert_eq!(found.as_deref(), Some("f"));
        assert_eq!(culprit_of_python(&[("execute", library), ("run", frozen)]), None);
    }

    /// What perf maps name: no module, now and then a file.
    fn culprit_at_run_time(language: Language, list: &[(&str, &str)]) -> Option<String> {
        let mut frames = frames(list);
        for frame in &mut frames {
            frame.file = frame.module.take().filter(|file| !file.is_empty());
        }
        culprit(&frames, language, &[]).and_then(|i| frames[i].function.clone())
    }

    #[test]
    fn go_closures_generics_and_lookalikes() {
        let app = "/app/shop";
        let go = |names: &[&str]| {
            let list: Vec<_> = names.iter().map(|name| (*name, app)).collect();
            culprit_of(Language::Go, &list)
        };
        let driver = "shop/vendor/github.com/lib/pq.(*conn).simpleExec";
        for own in [
            "main.(*Pool).Get[...]",
            "main.main.func1.2",
            "example.com/shop/pq.(*Store).Leak",
            "example.com/pgxpool.Leak",
            "github.com/lib/pqshop.Leak",
            "github.com/uptrace/bunny.Leak",
            "shop/runtime.Leak",
            "shop/db.(*Queries).GetOrder",
        ] {
            assert_eq!(go(&["PQexec", driver, own, "runtime.main"]).as_deref(), Some(own));
        }
        let fork = "git.acme.com/mirror/pgx/v5/pgconn.(*PgConn).Exec";
        assert_eq!(go(&[fork, "database/sql.(*DB).connectionOpener", "runtime.goexit"]), None);
        // What was downloaded is only named when nothing of the application's own is there.
        let mut frames = frames(&[("a.com/dbkit.Get", app), ("main.handle", app)]);
        frames[0].file = Some("/root/go/pkg/mod/a.com/dbkit@v1.2.3/get.go".to_owned());
        assert_eq!(culprit(&frames, Language::Go, &[]), Some(1));
        assert_eq!(culprit(&frames[..1], Language::Go, &[]), Some(0));
        let drivers = ["*/dbkit.*".parse().unwrap()];
        assert_eq!(culprit(&frames[..1], Language::Go, &drivers), None);
    }

    #[test]
    fn rust_crates_that_begin_like_a_library() {
        let rust = |names: &[&str]| {
            let list: Vec<_> = names.iter().map(|name| (*name, "/app/shop")).collect();
            culprit_of(Language::Native, &list)
        };
        for own in ["sqlx_shop::leak", "tokio_shop::leak", "<shop::Job as core::Future>::poll"] {
            let stack = [
                "<&mut sqlx_core::pool::Pool as core::Future>::poll",
                own,
                "tokio::runtime::task::poll",
            ];
            assert_eq!(rust(&stack).as_deref(), Some(own));
        }
        // The driver's own task, polled by the thread that runs `main`.
        let task = ["tokio_postgres::connection::poll", "tokio::runtime::task::raw::poll"];
        assert_eq!(
            rust(&[task[0], task[1], "tokio::runtime::Runtime::block_on", "shop::main"]),
            None
        );
        let sync = ["tokio::runtime::Runtime::block_on", "postgres::Client::query", "shop::main"];
        assert_eq!(rust(&sync).as_deref(), Some("shop::main"));
    }

    #[test]
    fn java_node_and_others() {
        let java = |names: &[&str]| {
            let list: Vec<_> = names.iter().map(|name| (*name, "")).collect();
            culprit_at_run_time(Language::Java, &list)
        };
        let driver = "org.postgresql.jdbc.PgStatement.execute";
        let pool = "com.zaxxer.hikari.pool.HikariProxyStatement.execute";
        let named = java(&[driver, pool, "com.acme.Shop.checkout", "Interpreter", "call_stub"]);
        assert_eq!(named.as_deref(), Some("com.acme.Shop.checkout"));
        assert_eq!(
            java(&[driver, "com.zaxxer.hikari.pool.HikariPool$PoolEntryCreator.call"]),
            None
        );

        let node = |list: &[(&str, &str)]| culprit_at_run_time(Language::Node, list);
        let inner = [
            ("writeGeneric", "node:internal/stream_base_commons"),
            ("query", "/app/node_modules/pg/lib/client.js"),
            ("run", "/app/node_modules/helper/index.js"),
        ];
        let outer = [("write", "/app/shop.js"), ("processTicksAndRejections", "node:internal/p")];
        assert_eq!(node(&[&inner[..], &outer[..]].concat()).as_deref(), Some("write"));
        assert_eq!(node(&inner).as_deref(), Some("run"));
        assert_eq!(node(&inner[..2]), None);

        let php = [("PDOStatement::execute", ""), ("Shop\\Orders::pay", "")];
        assert_eq!(culprit_at_run_time(Language::Php, &php).as_deref(), Some("Shop\\Orders::pay"));
        let dotnet = [("Npgsql.NpgsqlCommand::ExecuteReader", ""), ("Shop.Orders::Pay", "")];
        assert_eq!(
            culprit_at_run_time(Language::Dotnet, &dotnet).as_deref(),
            Some("Shop.Orders::Pay")
        );
    }

    #[test]
    fn what_started_a_loop_is_not_the_culprit() {
        let python = "/usr/lib/python3.11/asyncio";
        let runner = format!("{python}/runners.py");
        let start = [("Runner.run", runner.as_str()), ("<module>", "/srv/shop.py")];
        let mut stack = vec![("uv_run", "/usr/lib/libuv.so.1"), start[0], start[1]];
        assert_eq!(culprit_of_python(&stack), None);
        stack.insert(0, ("connect", "/srv/shop.py"));
        assert_eq!(culprit_of_python(&stack).as_deref(), Some("connect"));
        let loop_in_c =
            [("PQflush", "/lib/libpq.so.5"), ("uv_run", "/app/shop"), ("main", "/app/shop")];
        assert_eq!(culprit_of(Language::Native, &loop_in_c), None);
    }

    #[test]
    fn languages_by_module() {
        let of = |module| language_of([module].into_iter(), None);
        assert_eq!(of("/opt/jdk/lib/server/libjvm.so"), Language::Java);
        assert_eq!(of("/usr/bin/node"), Language::Node);
        assert_eq!(of("/usr/sbin/php-fpm8.2"), Language::Php);
        assert_eq!(of("/usr/bin/ruby3.1"), Language::Ruby);
        assert_eq!(of("/usr/bin/psql"), Language::Native);
        assert_eq!(
            language_of(["/lib/libpq.so.5"].into_iter(), Some("/usr/bin/python3.11")),
            Language::Python
        );
    }
}
