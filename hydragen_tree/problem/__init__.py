"""Problems: the YAML file and what other people's formats become."""
