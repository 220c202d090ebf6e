//! Fresh keys in time, many devices at once, and a member who was away for long.
