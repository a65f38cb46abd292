mod programs;
mod registry;
