use crate::cli::*;
use crate::outputs::PrintTo;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::read(std::iter::once(&"pgsocktrace").chain(arguments), |_| None)
}

#[test]
fn the_definition_is_sound() {
    Cli::definition().debug_assert();
}

#[test]
fn defaults_are_the_documented_ones() {
    let trace = parse(&[]).unwrap().trace;
    assert_eq!(trace.port, [5432]);
    assert_eq!(trace.interval, Duration::from_secs(10));
    assert_eq!(trace.silent_after, Duration::from_secs(60));
    assert_eq!(trace.output, Output::Text);
    assert!(trace.pid.is_empty() && trace.duration.is_none() && !trace.fail_on_leak);
}

#[test]
fn durations_take_all_documented_units() {
    for (text, ms) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000)] {
        let trace = parse(&["--interval", text]).unwrap().trace;
        assert_eq!(trace.interval, Duration::from_millis(ms), "{text}");
    }
}

#[test]
fn bad_values_are_refused() {
    for arguments in [
        ["--interval", "5x"],
        ["--interval", "0s"],
        ["--interval", "99ms"],
        ["--interval", "366d"],
        ["--interval", "18446744073709551615s"],
        ["--interval", "18446744073709551615y"],
        ["--silent-after", "18446744073709551615s"],
        ["--duration", "18446744073709551615s"],
        ["--duration", "0s"],
        ["--stack-budget", "18446744073709551615s"],
        ["--pid", "0"],
        ["--pid", "-3"],
        ["--port", "70000"],
        ["--ring-size", "3"],
        ["--output", "xml"],
        ["--driver-frames", "*"],
        ["--driver-frames", "[a"],
        ["--metrics-addr", "127.0.0.1"],
        ["--metrics-addr", "example.org:9738"],
        ["--label", "service"],
        ["--label", "1a=b"],
        ["--label", "pod=b"],
        ["--label", "a=b,a=c"],
        ["--flamegraph-by", "size"],
        ["--limit", "0"],
        ["--color", "blue"],
        ["--baseline", "/nonexistent"],
    ] {
        assert!(parse(&arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn bad_values_are_refused_with_what_would_be_good() {
    for (arguments, advice) in [
        (["--pid", "orders"], "use --comm orders"),
        (["--pid", "0"], "between 1 and"),
        (["--port", "postgres"], "between 1 and 65535"),
        (["--port", "5432,"], "missing before or after a comma"),
    ] {
        let error = parse(&arguments).unwrap_err().to_string();
        assert!(error.contains(advice), "{error}");
    }
}

#[test]
fn options_repeat() {
    let trace = parse(&["-p", "1", "-p", "2", "-P", "5432", "-P", "6432"]).unwrap().trace;
    assert_eq!((trace.pid, trace.port), (vec![1, 2], vec![5432, 6432]));
    let driver_frames = ["--driver-frames", "a.*,b.*", "--driver-frames", "c.*"];
    assert_eq!(parse(&driver_frames).unwrap().trace.driver_frames.len(), 3);
}

#[test]
fn the_shortest_durations_are_taken() {
    let trace = parse(&["--interval", "100ms", "--silent-after", "365d", "--duration", "1ms"]);
    let trace = trace.unwrap().trace;
    assert_eq!(trace.interval, Duration::from_millis(100));
    assert_eq!(trace.silent_after, crate::engine::LONGEST_PERIOD);
    assert_eq!(trace.duration, Some(Duration::from_millis(1)));
}

#[test]
fn more_ports_than_the_kernel_programs_know_are_refused() {
    let ports = |count| (1..=count).map(|port: u16| port.to_string()).collect::<Vec<_>>();
    assert_eq!(parse(&["-P", &ports(16).join(",")]).unwrap().trace.port.len(), 16);
    let error = parse(&["-P", &ports(17).join(",")]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("at most 16 ports"), "{error}");
}

#[test]
fn a_connection_string_is_never_quoted() {
    for text in ["host=db password='SECRET", "postgres://u:SECRET@host:x/db", "SECRET"] {
        let error = parse(&["--pg-dsn", text]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let said = error.to_string();
        assert!(said.contains("--pg-dsn") && !said.contains("SECRET"), "{said}");
    }
    let cli = parse(&["--pg-dsn", "host=a password=SECRET"]).unwrap();
    assert!(cli.shows_password);
    assert!(!format!("{cli:?}").contains("SECRET"));
    assert!(!parse(&["--pg-dsn", "host=a"]).unwrap().shows_password);
    let ls = ["ls", "--pg-dsn", "host=a password=SECRET"];
    assert!(parse(&ls).unwrap().shows_password);
}

#[test]
fn servers_are_one_per_line() {
    let trace = parse(&["--pg-dsn", "host=a,b user=x\n\npostgres://c/d\n", "--pg-dsn", "host=e"]);
    let servers = trace.unwrap().trace.pg_dsn.concat();
    let names: Vec<_> = servers.iter().map(Dsn::name).collect();
    assert_eq!(names, ["a:5432,b:5432/x", "c:5432/d", "e:5432"]);
}

#[test]
fn empty_variables_and_switches_that_are_off_count_as_unset() {
    let command = Cli::command();
    let option = |name: &str| {
        let mut options = command.get_arguments();
        options.find(|option| option.get_id() == name).unwrap()
    };
    let nothing = |name, value: &str| is_as_good_as_unset(option(name), OsStr::new(value));
    assert!(nothing("pid", "") && nothing("interval", "") && nothing("verbose", ""));
    assert!(nothing("children", "") && nothing("quiet", "0") && nothing("quiet", "No"));
    assert!(!nothing("children", "1") && !nothing("children", "maybe"));
    assert!(!nothing("verbose", "0") && !nothing("limit", "0"));
}

#[test]
fn a_command_is_taken_with_all_its_arguments() {
    let with = |arguments: &[&str]| parse(&[&["run"], arguments].concat());
    let command = |arguments: &[&str]| match with(arguments).unwrap().command {
        Some(Command::Run(args)) => args.command_line().unwrap(),
        other => panic!("{other:?}"),
    };
    let go = command(&["-P", "6432", "--", "go", "test", "-v", "./..."]);
    assert_eq!(go.program, "go");
    assert_eq!(go.arguments, ["test", "-v", "./..."]);
    assert_eq!(command(&["go", "test", "-v", "./..."]), go);
    assert!(with(&["-P", "6432"]).is_err(), "no command");
    for option in [["--pid", "1"], ["--duration", "5s"]] {
        let error = with(&[&option[..], &["--", "true"]].concat()).unwrap_err();
        assert!(error.to_string().contains("cannot be used with a command"), "{error}");
    }
    assert!(
        !Cli::definition()
            .find_subcommand_mut("run")
            .unwrap()
            .render_long_help()
            .to_string()
            .contains("--duration")
    );
}

#[test]
fn a_command_has_the_terminal_and_the_report_goes_to_stderr() {
    let outputs = |arguments: &[&str]| {
        let settings = parse(&[arguments, &["--", "true"]].concat()).unwrap().trace_settings();
        assert!(settings.command.is_some());
        settings.outputs.printed
    };
    let printed = outputs(&["run"]);
    assert_eq!((printed.to, printed.only_report), (PrintTo::Stderr, true));
    assert_eq!(outputs(&["run", "--report", "x"]).to, PrintTo::File("x".into()));
    assert_eq!(outputs(&["run", "-qq"]).to, PrintTo::Nowhere);
}

#[test]
fn quiet_prints_the_report_and_very_quiet_nothing() {
    let printed = |arguments: &[&str]| parse(arguments).unwrap().trace_settings().outputs.printed;
    assert!(!printed(&[]).only_report && printed(&["-q"]).only_report);
    assert_eq!(printed(&["-q"]).to, PrintTo::Stdout);
    assert_eq!(printed(&["-qq"]).to, PrintTo::Nowhere);
    assert!(parse(&["-q", "-v"]).is_err());
}
