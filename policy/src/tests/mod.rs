mod masks;
mod native;
mod rego;
mod world;
