"""The parts that screens are made of. They render values, and know no server."""
