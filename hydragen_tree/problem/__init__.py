"""Problems: the native YAML file and what other people's formats become."""
