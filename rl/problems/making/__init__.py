"""Problems that are made of known ones, without tests."""
