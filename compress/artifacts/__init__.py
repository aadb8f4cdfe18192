"""Models as files: saved and loaded, executed by runtimes, kept between runs."""
