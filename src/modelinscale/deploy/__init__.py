"""Deploy: what a project needs to run somewhere else, as files that are shown before anything is changed."""
