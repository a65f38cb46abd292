use crate::culprit::*;

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

/// The innermost frame of the application.
fn culprit(frames: &[Frame], language: Language, drivers: &[DriverFrames]) -> Option<usize> {
    application(frames, language, drivers).first().copied()
}

#[test]
fn callers_are_the_applications_other_frames() {
    let frame = |function: &str, file: &str| Frame {
        function: Some(function.into()),
        module: Some(file.into()),
        file: Some(file.into()),
        line: Some(1),
        address: 0,
    };
    let frames = [
        frame("execute", "/usr/lib/python3/dist-packages/psycopg2/extras.py"),
        frame("by_id", "/srv/shop/dao.py"),
        frame("run", "/usr/lib/python3.11/threading.py"),
        frame("refund", "/srv/shop/pay.py"),
    ];
    assert_eq!(application(&frames, Language::Python, &[]), [1, 3]);
}

fn culprit_of(language: Language, list: &[(&str, &str)]) -> Option<String> {
    let frames = frames(list);
    culprit(&frames, language, &[]).and_then(|i| frames[i].function.clone())
}

#[test]
fn every_line_is_a_rule() {
    assert_eq!(RULES.malformed, 0);
    assert!(RULES.functions.of(|_| true).map(globset::GlobSet::len).sum::<usize>() > 100);
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
        culprit_of(Language::Go, &[("net.Dial", app), ("main.main", app), ("runtime.main", app)])
            .as_deref(),
        Some("main.main")
    );
    // Packages whose names merely begin like the library's.
    assert_eq!(culprit_of(Language::Go, &[("network.Dial", app)]).as_deref(), Some("network.Dial"));
}

#[test]
fn inlined_functions_of_rust_without_paths() {
    const REGISTRY: &str = "/home/dev/.cargo/registry/src/index-1949cf8c6b5b557f";
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
    let is_call = |frame: &&mut Frame| !frame.module.as_deref().is_some_and(|m| m.contains(".so"));
    for frame in frames.iter_mut().filter(is_call) {
        frame.file.clone_from(&frame.module);
    }
    culprit(&frames, Language::Python, &[]).and_then(|i| frames[i].function.clone())
}

#[test]
fn ruby_libraries_are_not_the_application() {
    let call = |function: &str, file: &str| Frame {
        function: Some(function.to_owned()),
        module: Some(file.to_owned()),
        file: Some(file.to_owned()),
        line: Some(1),
        address: 0,
    };
    let gems = "/usr/local/bundle/gems";
    let stack = [
        call("PG::Connection#exec", &format!("{gems}/pg-1.5.9/lib/pg/connection.rb")),
        call("Array#each", "<internal:array>"),
        call("Ledger::Entry.post", &format!("{gems}/ledger-2.0.1/lib/ledger.rb")),
        call("Monitor#synchronize", "/usr/local/lib/ruby/3.4.0/monitor.rb"),
        call("Order#refund", "/srv/shop/app/models/order.rb"),
        call("Puma::Server#process_client", &format!("{gems}/puma-6.5.0/lib/puma/server.rb")),
        call("<main>", "/usr/local/bundle/bin/puma"),
    ];
    let named = |frames: &[Frame]| {
        let culprit = culprit(frames, Language::Ruby, &[])?;
        frames[culprit].function.clone()
    };
    assert_eq!(named(&stack).as_deref(), Some("Order#refund"));
    let gems_alone = [&stack[..4], &stack[5..]].concat();
    assert_eq!(named(&gems_alone).as_deref(), Some("Ledger::Entry.post"));
    let drivers_alone = [&stack[..2], &stack[5..]].concat();
    assert_eq!(named(&drivers_alone), None);
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
        ("run", "/usr/local/lib/python3.14t/threading.py"),
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
    let own = [
        "/srv/asyncpg/app.py",
        "/srv/psycopg/main.py",
        "/srv/shop/psycopg2_shop.py",
        "/srv/python3_app.py",
    ];
    for own in own {
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
    frames[0].file = Some("/home/dev/go/pkg/mod/a.com/dbkit@v1.2.3/get.go".to_owned());
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
    assert_eq!(rust(&[task[0], task[1], "tokio::runtime::Runtime::block_on", "shop::main"]), None);
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
    assert_eq!(java(&[driver, "com.zaxxer.hikari.pool.HikariPool$PoolEntryCreator.call"]), None);
    let made_up = [
        "com.acme.$Proxy12.find",
        "com.acme.Order$HibernateProxy$x8F.getTotal",
        "com.acme.Shop.access$000",
        "jdk.internal.reflect.GeneratedMethodAccessor7.invoke",
        "com.acme.Shop$$Lambda$14/0x00007f00dc000a00.run",
    ];
    let body = "com.acme.Shop.lambda$checkout$0";
    assert_eq!(java(&[&made_up[..], &[body]].concat()).as_deref(), Some(body));

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
    for library in [
        "typeorm/driver/postgres/PostgresQueryRunner.js",
        ".pnpm/sequelize@6.37.5_pg@8.13.1/node_modules/sequelize/lib/sequelize.js",
        "@prisma/client/runtime/library.js",
        "knex/lib/execution/transaction.js",
        "drizzle-orm/node-postgres/session.js",
        "postgres/cjs/src/connection.js",
    ] {
        let file = format!("/app/node_modules/{library}");
        assert_eq!(node(&[("query", file.as_str())]), None, "{library}");
    }

    let php = [("JIT code", ""), ("PDOStatement::execute", ""), ("Shop\\Orders::pay", "")];
    assert_eq!(culprit_at_run_time(Language::Php, &php).as_deref(), Some("Shop\\Orders::pay"));
    let of_files = |list: &[(&str, &str)]| {
        let frame = |&(function, file): &(&str, &str)| Frame {
            function: Some(function.to_owned()),
            module: Some(file.to_owned()),
            file: file.ends_with(".php").then(|| file.to_owned()),
            line: None,
            address: 0,
        };
        let frames: Vec<_> = list.iter().map(frame).collect();
        culprit(&frames, Language::Php, &[]).and_then(|index| frames[index].function.clone())
    };
    let laravel = "/srv/vendor/laravel/framework/src/Illuminate/Database";
    let connection = format!("{laravel}/Connection.php");
    let inner = [("PDO::query", "/usr/bin/php8.2"), ("run", &*connection)];
    let outer = [("retry", "/srv/vendor/acme/retry/src/retry.php"), ("pay", "/srv/app/Pay.php")];
    assert_eq!(of_files(&[&inner[..], &outer].concat()).as_deref(), Some("pay"));
    assert_eq!(of_files(&[&inner[..], &outer[..1]].concat()).as_deref(), Some("retry"));
    assert_eq!(of_files(&inner), None);
    let dotnet = [("Npgsql.NpgsqlCommand::ExecuteReader", ""), ("Shop.Orders::Pay", "")];
    assert_eq!(culprit_at_run_time(Language::Dotnet, &dotnet).as_deref(), Some("Shop.Orders::Pay"));
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
    assert_eq!(of("/usr/local/bin/deno"), Language::Deno);
    assert_eq!(of("/root/.bun/bin/bun"), Language::Bun);
    assert_eq!(of("/usr/lib/libpypy3.11-c.so"), Language::Python);
    assert_eq!(of("/usr/sbin/php-fpm8.2"), Language::Php);
    assert_eq!(of("/usr/bin/ruby3.1"), Language::Ruby);
    assert_eq!(of("/usr/bin/psql"), Language::Native);
    assert_eq!(
        language_of(["/lib/libpq.so.5"].into_iter(), Some("/usr/bin/python3.11")),
        Language::Python
    );
}
