//! Descriptions and differences of shapes, over what the compiler makes and over generated records.

mod compiled;
mod losing_nothing;
mod membership;
mod printed;
mod world;
