"""Ways to run the work items of a job: in this process, or on the workers of a Dask cluster."""
