//! Which copy of a device is served.
