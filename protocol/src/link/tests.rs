//! The link's opening: what is and is not admitted.
