//! JSON schemas, generated from the types that are written.

use std::io;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// Writes the schema of `T` as it is written, by draft 2020-12.
pub(in crate::outputs) fn write<T: JsonSchema>(out: &mut impl io::Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &of::<T>())?;
    writeln!(out)
}

fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(join_lines).transform(&mut schema);
    schema
}

/// Comments are broken into lines where the source is; descriptions are broken where they are
/// shown.
fn join_lines(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

#[cfg(test)]
pub(in crate::outputs) mod tests;
