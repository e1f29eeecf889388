# two permanent tasks in two zones; additional ones are mostly on Spot
environment    = "prod"
cpu            = 1024
memory         = 2048
min_tasks      = 2
max_tasks      = 20
on_demand_base = 2
spot_weight    = 80
protect        = true
