//! How fast is too fast.
