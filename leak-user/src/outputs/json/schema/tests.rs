use std::path::Path;

use jsonschema::Validator;

use super::*;
use crate::outputs::{json, ndjson};

const REPORT: fn(&mut Vec<u8>) -> io::Result<()> = json::write_schema;
const LINE: fn(&mut Vec<u8>) -> io::Result<()> = ndjson::write_schema;
const LISTING: fn(&mut Vec<u8>) -> io::Result<()> = json::write_listing_schema;

fn written(write: fn(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
    let mut schema = Vec::new();
    write(&mut schema).unwrap();
    schema
}

/// Calls `with` for each object that `schema` describes.
fn each_object(schema: &mut Value, with: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(|value| each_object(value, with));
            if fields.get("properties").is_some_and(Value::is_object) {
                with(fields);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| each_object(value, with)),
        _ => {}
    }
}

/// Checks also that there is no field that the schema does not describe: other than in what is
/// published, none may be added.
fn strict(write: fn(&mut Vec<u8>) -> io::Result<()>) -> Validator {
    let mut schema = serde_json::from_slice(&written(write)).unwrap();
    each_object(&mut schema, &mut |object| {
        object.insert("unevaluatedProperties".into(), false.into());
    });
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

/// Panics unless the report has what its schema describes, and nothing else.
pub(in crate::outputs) fn assert_is_report(report: &Value) {
    assert_follows(&strict(REPORT), report);
}

/// Panics unless the listing has what its schema describes, and nothing else.
pub(in crate::outputs) fn assert_is_listing(listing: &Value) {
    assert_follows(&strict(LISTING), listing);
}

/// Panics unless each line has what its schema describes, and nothing else.
pub(in crate::outputs) fn assert_are_lines(lines: &[Value]) {
    let schema = strict(LINE);
    lines.iter().for_each(|line| assert_follows(&schema, line));
}

fn assert_follows(schema: &Validator, written: &Value) {
    if let Err(error) = schema.validate(written) {
        panic!("{error} at {} in {written:#}", error.instance_path());
    }
}

#[test]
fn docs_has_the_schemas_of_the_types() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for (write, file, option) in [
        (REPORT, "report.schema.json", ""),
        (LINE, "ndjson.schema.json", "--ndjson "),
        (LISTING, "ls.schema.json", "--ls "),
    ] {
        let documented = std::fs::read(docs.join(file)).unwrap_or_default();
        assert!(
            documented == written(write),
            "docs/{file} is out of date; renew it with \
             `cargo run -p leak-user -- schema {option}> docs/{file}`"
        );
    }
}

#[test]
fn every_field_is_described() {
    for write in [REPORT, LINE, LISTING] {
        let mut schema = serde_json::from_slice(&written(write)).unwrap();
        each_object(&mut schema, &mut |object| {
            for (name, field) in object["properties"].as_object().unwrap() {
                let is_described = field.get("description").is_some();
                assert!(is_described || name == "event", "{name} of {object:#?}");
            }
        });
    }
}
