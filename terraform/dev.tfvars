# one small Spot task, which may be interrupted; nothing is protected from deletion
environment        = "dev"
cpu                = 256
memory             = 512
min_tasks          = 1
max_tasks          = 2
on_demand_base     = 0
spot_weight        = 100
protect            = false
log_retention_days = 7
