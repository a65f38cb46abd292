//! Which frame of a stack is the application's, and what the application is written in.

use std::sync::LazyLock;

use super::{Frame, Language};

/// The rules, one a line; the file explains itself.
const RULES: &str = include_str!("culprit_rules.txt");

static PARSED: LazyLock<Rules> = LazyLock::new(|| Rules::parse(RULES));

#[derive(Debug, Default)]
struct Rules {
    languages: Vec<(Language, &'static str)>,
    modules: Vec<&'static str>,
    functions: Vec<&'static str>,
    packages: Vec<&'static str>,
    files: Vec<&'static str>,
    /// Lines that are no rules; a test keeps this at none.
    malformed: usize,
}

impl Rules {
    fn parse(text: &'static str) -> Self {
        let mut rules = Self::default();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            match line.split_once(' ').map(|(kind, rest)| (kind, rest.trim())) {
                Some(("module", glob)) => rules.modules.push(glob),
                Some(("function", glob)) => rules.functions.push(glob),
                Some(("package", glob)) => rules.packages.push(glob),
                Some(("file", glob)) => rules.files.push(glob),
                Some(("language", rest)) => {
                    match rest.split_once(' ').and_then(|(n, g)| Some((language(n)?, g.trim()))) {
                        Some(rule) => rules.languages.push(rule),
                        None => rules.malformed += 1,
                    }
                }
                _ => rules.malformed += 1,
            }
        }
        rules
    }
}

fn language(name: &str) -> Option<Language> {
    Some(match name {
        "go" => Language::Go,
        "native" => Language::Native,
        "python" => Language::Python,
        "java" => Language::Java,
        "node" => Language::Node,
        "ruby" => Language::Ruby,
        "php" => Language::Php,
        _ => return None,
    })
}

/// Directories into which Python packages are installed.
const PACKAGES: [&str; 2] = ["/site-packages/", "/dist-packages/"];

/// Index of the innermost frame that belongs to the application; `None` when no frame does, or
/// none that does has a name. Code that a library may have made up at run time (`<string>`) is
/// chosen only when there is no other.
pub(super) fn culprit(frames: &[Frame]) -> Option<usize> {
    let is_from_file = |f: &Frame| !f.file.as_deref().is_some_and(|file| file.starts_with('<'));
    frames
        .iter()
        .position(|frame| is_application(frame) && is_from_file(frame))
        .or_else(|| frames.iter().position(is_application))
}

fn is_application(frame: &Frame) -> bool {
    let Some(function) = frame.function.as_deref() else { return false };
    let function = without_vendor(function);
    let module = frame.module.as_deref().map(base_name);
    !PARSED.functions.iter().any(|glob| matches(glob, function))
        && !module.is_some_and(|m| PARSED.modules.iter().any(|glob| matches(glob, m)))
        && ![&frame.file, &frame.module].into_iter().flatten().any(|path| is_library(path))
}

/// Whether a source file or module belongs to a library.
fn is_library(path: &str) -> bool {
    let below = |directory: &&str| path.rfind(*directory).map(|at| at + directory.len());
    match PACKAGES.iter().filter_map(below).max().and_then(|at| path.get(at..)) {
        Some(package) => PARSED.packages.iter().any(|glob| matches(glob, package)),
        None => PARSED.files.iter().any(|glob| matches(glob, path)),
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

    fn culprit_of(list: &[(&str, &str)]) -> Option<String> {
        let frames = frames(list);
        culprit(&frames).and_then(|i| frames[i].function.clone())
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
        let found = culprit_of(&[
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
        ]);
        assert_eq!(found.as_deref(), Some("example.com/shop/orders.(*Handler).List"));
        assert_eq!(
            culprit_of(&[("net.Dial", app), ("main.main", app), ("runtime.main", app)]).as_deref(),
            Some("main.main")
        );
        // Packages whose names merely begin like the library's.
        assert_eq!(culprit_of(&[("network.Dial", app)]).as_deref(), Some("network.Dial"));
    }

    #[test]
    fn rust_and_c_applications() {
        let app = "/usr/bin/shop";
        let found = culprit_of(&[
            ("__send", "/lib/x86_64-linux-gnu/libc.so.6"),
            ("<&std::net::tcp::TcpStream as std::io::Write>::write", app),
            ("<tokio::net::tcp::stream::TcpStream as tokio::io::AsyncWrite>::poll_write", app),
            ("sqlx_postgres::connection::PgConnection::run::{{closure}}", app),
            ("shop::orders::list::{{closure}}", app),
            ("tokio::runtime::task::raw::poll", app),
        ]);
        assert_eq!(found.as_deref(), Some("shop::orders::list::{{closure}}"));
        let found = culprit_of(&[
            ("send", "/usr/lib/libc.so.6"),
            ("PQsendQuery", "/app/wheels/libpq-a17e3caa.so.5.17"),
            ("", app),
            ("fetch_orders", app),
            ("main", app),
        ]);
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
        assert_eq!(culprit_of(&python), None);
        assert_eq!(language_of(python.iter().map(|f| f.1), None), Language::Python);
    }

    fn culprit_of_python(list: &[(&str, &str)]) -> Option<String> {
        let mut frames = frames(list);
        for frame in &mut frames {
            frame.file.clone_from(&frame.module);
        }
        culprit(&frames).and_then(|i| frames[i].function.clone())
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
        let frozen = "<frozen importlib._bootstrap>";
        let found = culprit_of_python(&[("execute", library), ("run", frozen), ("f", "<stdin>")]);
        assert_eq!(found.as_deref(), Some("f"));
        assert_eq!(culprit_of_python(&[("execute", library), ("run", frozen)]), None);
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
